"""When an event was sent, as far as it tells: pure.

A process that stood still, or had no time, reads late what came long before. A loss that begins behind its
last event has to be dated from when that was sent, or a part of it goes untold: 123 of 166,000 missing events
in half an hour of faults.
"""

from __future__ import annotations

import orjson

# The exchange's clock and ours differ by less; what stood still for longer was replaced.
MOST_NS = 600 * 10**9


def event_time_ns(payload: bytes, recv_ns: int) -> int:
    """By the event's own time (`E`, in ms), where it has one; else, and never later than, `recv_ns`."""
    try:
        stamp = orjson.loads(payload).get("E")
    except (orjson.JSONDecodeError, AttributeError):
        return recv_ns
    at_ns = stamp * 1_000_000 if isinstance(stamp, int) else recv_ns
    return at_ns if recv_ns - MOST_NS < at_ns < recv_ns else recv_ns
