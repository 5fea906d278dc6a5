"""The lines of `status` below its table: readiness, critical streams, stopped streams, changes, the
status page.
"""

from __future__ import annotations

from collections.abc import Iterator

from relay.model.stats import Health, PageStatus, RelayStatus, StreamStats, WarmLeg
from relay.primitives.text import clip, count, utc_to_the_second

CHANGES_SHOWN = 5
# Commands and paths are meant to be copied, so a narrow terminal wraps these lines and does not cut them.
MAX_LINE = 400


def status_notes(status: RelayStatus) -> list[str]:
    return [clip(line, MAX_LINE) for line in _lines(status)]


def page_line(page: PageStatus) -> str:
    """Where the page is, and which token allows changes there."""
    allowed = f"its buttons take the token in {page.token_file}" if page.token_file else "read-only"
    return f"status page: {page.url}   {allowed}"


def _lines(status: RelayStatus) -> Iterator[str]:
    yield from _health_lines(status.health)
    yield from (_critical_line(one) for one in status.streams if one.critical)
    for one in status.stopped:
        at = utc_to_the_second(one.at_ns)
        yield f"stopped: {one.key}, by {one.who} at {at}; `driver.py resume` starts it again"
    for change in reversed(status.changes[-CHANGES_SHOWN:]):
        yield f"changed: {utc_to_the_second(change.at_ns)} {change.what}, by {change.who}"
    if status.page is not None:
        yield page_line(status.page)


def _critical_line(stream: StreamStats) -> str:
    active = f"critical: {stream.key} is active on {_location(stream.node, stream.pid)}"
    parts = [active, _standby(stream.warm)]
    if stream.takeovers:
        parts.append(f"{stream.takeovers} takeover{'s' if stream.takeovers != 1 else ''}")
    return ", ".join(parts)


def _standby(warm: WarmLeg | None) -> str:
    if warm is None:
        return "with no standby"
    word = "ready" if warm.ready else "not ready yet"
    return (
        f"standby on {_location(warm.node, warm.pid)} and {word}, {count(warm.remembered)} events remembered"
    )


def _location(node: str, pid: int) -> str:
    """Ray's node ids have 56 hexadecimal digits; the first eight distinguish them."""
    return f"node {node[:8]} (pid {pid})"


def _health_lines(health: Health) -> Iterator[str]:
    if not health.not_ready and not health.unhealthy:
        yield "ready: every stream has delivered, and NATS acknowledges"
    for reason in health.unhealthy:
        yield f"unhealthy: {reason}"
    for reason in health.not_ready:
        if reason not in health.unhealthy:
            yield f"not ready: {reason}"
