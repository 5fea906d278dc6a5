"""How far the rollout of a configuration is, from the status before it and the status now. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relay.config import Config, StreamSettings
from relay.model.stats import RelayStatus, StreamStats


@dataclass(frozen=True, slots=True)
class Rollout:
    """`waiting` names what is not done yet, in a few words each; empty when the rollout is complete.
    `restarted` are the keys of the streams that were started or started again."""

    before: RelayStatus
    now: RelayStatus
    waiting: tuple[str, ...]
    restarted: tuple[str, ...]


def rollout_status(before: RelayStatus, now: RelayStatus, config: Config) -> Rollout:
    """`config` is what was applied since `before`, and differs from what ran then."""
    stopped = {one.key for one in now.stopped}
    wanted = {one.spec.key: one for one in config.streams if one.spec.key not in stopped}
    old, new = streams_by_key(before), streams_by_key(now)
    renewed = tuple(key for key in wanted if key not in old or key not in new or _is_new(old[key], new[key]))
    if now.config_version <= before.config_version:
        return Rollout(before, now, ("the controller",), ())
    waiting = (*now.pending, *_streams_waited_for(renewed, new, wanted), *_publishers_waited_for(now))
    return Rollout(before, now, waiting, renewed)


def streams_by_key(status: RelayStatus) -> dict[str, StreamStats]:
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
