"""What `status` tells below its table: is it ready, who is hot, what is stopped, who changed what, where the
page is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from relay.model.stats import Health, PageStatus, RelayStatus, StreamStats, WarmLeg
from relay.primitives.text import clip, count

CHANGES_SHOWN = 5
# Commands and paths are there to be copied, so a narrow terminal wraps them.
LONGEST = 400


def footnotes(status: RelayStatus) -> list[str]:
    return [clip(line, LONGEST) for line in _lines(status)]


def page_line(page: PageStatus) -> str:
    """Where the page is, and what it takes to change anything there."""
    allowed = f"its buttons take the token in {page.token_file}" if page.token_file else "read-only"
    return f"status page: {page.url}   {allowed}"


def _lines(status: RelayStatus) -> Iterator[str]:
    yield from _of_health(status.health)
    yield from (_of_legs(one) for one in status.streams if one.critical)
    for one in status.stopped:
        yield f"stopped: {one.key}, by {one.who} at {_clock(one.at_ns)}; `driver.py resume` starts it again"
    for change in reversed(status.changes[-CHANGES_SHOWN:]):
        yield f"changed: {_clock(change.at_ns)} {change.what}, by {change.who}"
    if status.page is not None:
        yield page_line(status.page)


def _of_legs(hot: StreamStats) -> str:
    key = hot.key
    took_over = f", {hot.takeovers} takeover{'s' if hot.takeovers != 1 else ''}" if hot.takeovers else ""
    return f"critical: {key} is hot on {_place(hot.node, hot.pid)}, {_standby(hot.warm)}{took_over}"


def _standby(warm: WarmLeg | None) -> str:
    if warm is None:
        return "with no warm leg"
    word = "ready" if warm.ready else "not ready yet"
    return f"warm on {_place(warm.node, warm.pid)} and {word}, {count(warm.remembered)} events remembered"


def _place(node: str, pid: int) -> str:
    """Ray's names of nodes have 56 digits, of which the first tell them apart."""
    return f"node {node[:8]} (pid {pid})"


def _of_health(health: Health) -> Iterator[str]:
    if not health.not_ready and not health.unhealthy:
        yield "ready: every stream has delivered, and NATS acknowledges"
    for reason in health.unhealthy:
        yield f"unhealthy: {reason}"
    for reason in health.not_ready:
        if reason not in health.unhealthy:
            yield f"not ready: {reason}"


def _clock(at_ns: int) -> str:
    """UTC, as in the envelope."""
    return f"{datetime.fromtimestamp(at_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}Z"
