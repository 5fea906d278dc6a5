"""What applying a configuration has come to so far: one look held against the look before it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from relay.config import Config, StreamSettings
from relay.layout import count
from relay.stats import RelayStatus, StreamStats


@dataclass(frozen=True, slots=True)
class Effect:
    """`waiting` says what is not done yet, in a few words each; empty when the change is complete."""

    before: RelayStatus
    now: RelayStatus
    waiting: tuple[str, ...]
    renewed: tuple[str, ...]


def effect(before: RelayStatus, now: RelayStatus, config: Config) -> Effect:
    """`config` is what was applied since `before`, and differs from what ran then."""
    stopped = {one.key for one in now.stopped}
    wanted = {one.spec.key: one for one in config.streams if one.spec.key not in stopped}
    old, new = _by_key(before), _by_key(now)
    renewed = tuple(key for key in wanted if key not in old or key not in new or _is_new(old[key], new[key]))
    if now.config_version <= before.config_version:
        return Effect(before, now, ("the controller",), ())
    waiting = (*now.pending, *_streams_waited_for(renewed, new, wanted), *_publishers_waited_for(now))
    return Effect(before, now, waiting, renewed)


def lines(done: Effect) -> Iterator[str]:
    """For people: every stream that was touched, then the publishers before and after."""
    new, old = _by_key(done.now), _by_key(done.before)
    ended = {one.key: one for one in done.now.ended}
    for key in old:
        if key not in new:
            yield f"{key}: {parting(ended.get(key))}"
    for key in done.renewed:
        if key in new:
            yield f"{key}: {arrival(new[key])}"
    kept = [key for key in new if key in old and key not in done.renewed]
    yield f"{len(kept)} stream{'s' if len(kept) != 1 else ''} not touched"
    yield f"before: {done.before.scale.summary}"
    yield f"after:  {done.now.scale.summary}: {done.now.scale.reason}"


def _by_key(status: RelayStatus) -> dict[str, StreamStats]:
    return {one.key: one for one in status.streams}


def _is_new(old: StreamStats, new: StreamStats) -> bool:
    return new.epoch != old.epoch


def _streams_waited_for(
    renewed: tuple[str, ...], new: Mapping[str, StreamStats], wanted: Mapping[str, StreamSettings]
) -> Iterator[str]:
    for key in renewed:
        stats = new.get(key)
        if stats is None or not stats.subscribed_at_ns:
            yield f"{key} to be subscribed"
        elif not stats.first_data_at_ns and wanted[key].spec.silence_limit_s is not None:
            yield f"first data of {key}"
        elif not stats.linked:
            yield f"a publisher for {key}"


def _publishers_waited_for(now: RelayStatus) -> Iterator[str]:
    if now.scale.actual != now.scale.wanted:
        yield f"publishers: {now.scale.summary}"


def arrival(stats: StreamStats) -> str:
    if not stats.subscribed_at_ns:
        return "not subscribed yet"
    subscribed = f"subscribed at {_clock(stats.subscribed_at_ns)}"
    if not stats.first_data_at_ns:
        return f"{subscribed}, no data yet"
    later_s = max(0, stats.first_data_at_ns - stats.subscribed_at_ns) / 1e9
    return f"{subscribed}, first data at {_clock(stats.first_data_at_ns)}, {later_s:.2f} s later"


def parting(stats: StreamStats | None) -> str:
    if stats is None:
        return "removed; it gave no final figures, and its journal holds what it had"
    if stats.backlog_count:
        return f"drained; {count(stats.backlog_count)} events are left, in its journal where it has one"
    return f"drained; {count(stats.acknowledged)} events acknowledged, none left"


def _clock(at_ns: int) -> str:
    """UTC, as in the envelope."""
    return f"{datetime.fromtimestamp(at_ns / 1e9, UTC):%H:%M:%S.%f}"[:-3] + "Z"
