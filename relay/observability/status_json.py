"""The status as JSON: `status --json` prints and the status page reads the same bytes. Pure."""

from __future__ import annotations

from dataclasses import asdict

import orjson

from relay.model.stats import RelayStatus


def encoded(status: RelayStatus) -> bytes:
    streams = [
        {**asdict(one), "backlog": one.backlog_count, "balanced": one.balanced} for one in status.streams
    ]
    return orjson.dumps({**asdict(status), "streams": streams}, option=orjson.OPT_INDENT_2)
