"""The rollout of a configuration as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from relay.control.rollout import Rollout, streams_by_key
from relay.model.stats import StreamStats
from relay.primitives.text import count, utc_time_of_day


def lines(done: Rollout) -> Iterator[str]:
    """Every stream that was changed, then the number of publishers before and after."""
    new, old = streams_by_key(done.now), streams_by_key(done.before)
    ended = {one.key: one for one in done.now.ended}
    for key in old:
        if key not in new:
            yield f"{key}: {drained_text(ended.get(key))}"
    for key in done.restarted:
        if key in new:
            yield f"{key}: {subscribed_text(new[key])}"
    kept = [key for key in new if key in old and key not in done.restarted]
    yield f"{len(kept)} stream{'s' if len(kept) != 1 else ''} not touched"
    yield f"before: {done.before.scale.summary}"
    yield f"after:  {done.now.scale.summary}: {done.now.scale.reason}"


def subscribed_text(stats: StreamStats) -> str:
    if not stats.subscribed_at_ns:
        return "not subscribed yet"
    subscribed = f"subscribed at {utc_time_of_day(stats.subscribed_at_ns)}"
    if not stats.first_data_at_ns:
        return f"{subscribed}, no data yet"
    later_s = max(0, stats.first_data_at_ns - stats.subscribed_at_ns) / 1e9
    return f"{subscribed}, first data at {utc_time_of_day(stats.first_data_at_ns)}, {later_s:.2f} s later"


def drained_text(stats: StreamStats | None) -> str:
    if stats is None:
        return "removed; it gave no final figures, and its journal holds what it had"
    if stats.backlog_count:
        return f"drained; {count(stats.backlog_count)} events are left, in its journal where it has one"
    return f"drained; {count(stats.acknowledged)} events acknowledged, none left"
