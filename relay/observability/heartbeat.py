"""The content of `sluice.heartbeat`: that the relay runs, whether it is ready, and each stream's totals.

It is published on core NATS, whatever the delivery of events is, and not stored: an old one has no value.
"""

from __future__ import annotations

from typing import Any

import orjson

from relay.model.stats import RelayStatus, StreamStats
from relay.primitives.text import utc

HEARTBEAT_INTERVAL_S = 30.0
_TOTALS = (
    *("received", "acknowledged", "queued", "in_flight", "spilled", "conflated", "dropped", "rejected"),
    *("repeated", "lost", "gaps", "healed", "repaired"),
)


def encoded(status: RelayStatus, at_ns: int) -> bytes:
    """JSON. `at_ns` is Unix time. Totals are of the stream's present incarnation, `epoch`."""
    return orjson.dumps(
        {
            "at": utc(at_ns),
            "every_s": HEARTBEAT_INTERVAL_S,
            "ready": not status.health.not_ready,
            "healthy": not status.health.unhealthy,
            "reasons": status.health.not_ready,
            "delivery": status.delivery,
            "configuration": status.config_version,
            "publishers": {
                "mode": status.scale.mode,
                "wanted": status.scale.wanted,
                "actual": status.scale.actual,
            },
            "streams": {one.key: _totals(one) for one in status.streams},
            "stopped": [one.key for one in status.stopped],
        }
    )


def _totals(stats: StreamStats) -> dict[str, Any]:
    totals = {name: getattr(stats, name) for name in _TOTALS}
    return {
        "state": stats.state,
        "epoch": stats.epoch,
        "backlog_age_s": round(stats.backlog_age_s, 3),
        **totals,
    }
