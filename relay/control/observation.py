"""What the controller knows about its actors: the last observation of each, and since when it holds. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.control.reconcile import UNRESPONSIVE_LIMIT_S, Observed, ObservedPublisher, ObservedStream
from relay.control.replacement_grace import ReplacementGrace, replacement_grace
from relay.control.standby_pairs import UncoveredStreams, merged, other_instance
from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import PublisherEndpoint
from relay.model.stats import LegState, PublisherStats, StreamState, StreamStats
from relay.ports import Observation
from relay.primitives.condition import held_since

RETRY_S = 1.0
RETRY_MAX_S = 30.0
# Starting takes a second or two on a warm node, and tens of seconds when the node has to be created first.
SLOW_START_S = 15.0
# A publisher may be without NATS for this long while another one is connected; streams fail over after 2 s
# anyway.
DISCONNECTED_LIMIT_S = 3.0
# A publisher has a slow connection to NATS when its oldest message waits longer than SLOW_WAIT_MS and
# SLOW_FACTOR times as long as the median of the other publishers, for SLOW_LIMIT_S. It gets no streams for
# SLOW_FOR_S; then it may have some again.
SLOW_WAIT_MS, SLOW_FACTOR = 500.0, 10.0
SLOW_LIMIT_S = 3.0
SLOW_FOR_S = 60.0
# Events that have not been acknowledged for this long are shown as a problem.
BEHIND_LIMIT_S = 3.0

_ENDING = (StreamState.DRAINING, StreamState.STOPPED)


@dataclass(slots=True)
class _ActorRecord:
    """What is known about one actor; the times are None while the condition does not hold."""

    stats: StreamStats | PublisherStats | None = None
    silence: Silence | None = Silence.STARTING
    starting_since: float | None = None
    unresponsive_since: float | None = None
    # The part of that time that the replacement grace covers.
    grace_used_s: float = 0.0
    retired_at: float | None = None
    disconnected_since: float | None = None
    slow_s: float = 0.0
    slow_until: float | None = None
    # Of a stream that answers: the result of the last observation.
    last_observed: ObservedStream | None = None


@dataclass(slots=True)
class ClusterView:
    """The actors as of the last observation. `update` must be called before anything else."""

    _now: float = 0.0
    _actors: dict[ActorId, _ActorRecord] = field(default_factory=dict)
    _attempts: dict[ActorId, int] = field(default_factory=dict)
    _not_before: dict[ActorId, float] = field(default_factory=dict)
    _uncovered: UncoveredStreams = field(default_factory=UncoveredStreams)

    def update(self, observations: Mapping[ActorId, Observation], now: float) -> None:
        elapsed_s, self._now = now - self._now, now
        grace = replacement_grace(observations)
        self._actors = {
            actor: self._record(actor, observation)
            for actor, observation in observations.items()
            if observation is not Silence.DEAD
        }
        for actor, record in self._actors.items():
            if record.unresponsive_since is not None:
                _use_grace(record, grace, actor, elapsed_s)
        self._compare_speeds(min(elapsed_s, RETRY_S))
        self._uncovered.update(self.streams(), now)

    def _compare_speeds(self, elapsed_s: float) -> None:
        """If one publisher is slow, its connection to NATS is; if all are, NATS is, and no streams are
        moved."""
        waits = {stats.publisher: stats.waiting_ms for stats in self.publishers() if stats.connected}
        all_slow = _slow_publishers(waits)
        for record in self._actors.values():
            if isinstance(record.stats, PublisherStats):
                slow = record.stats.publisher in all_slow
                # Half as fast down as up: a publisher that reconnects has no waiting message at first, and is
                # slow again a moment later.
                record.slow_s = max(0.0, record.slow_s + (elapsed_s if slow else -elapsed_s / 2))
                if record.slow_s >= SLOW_LIMIT_S:
                    record.slow_s, record.slow_until = 0.0, self._now + SLOW_FOR_S

    def _record(self, actor: ActorId, observation: Observation) -> _ActorRecord:
        record = self._actors.get(actor)
        if record is None:
            record = _ActorRecord()
        if record.silence is None and isinstance(observation, StreamStats):
            # The usual case, handled early because it is by far the most frequent: the stream still answers.
            record.stats = observation
            return record
        if isinstance(observation, Silence):
            record.silence = observation
        else:
            record.silence, record.stats = None, observation
            self._attempts.pop(actor, None)
            self._not_before.pop(actor, None)
        record.starting_since = held_since(record.starting_since, observation is Silence.STARTING, self._now)
        record.unresponsive_since = held_since(
            record.unresponsive_since, observation is Silence.UNRESPONSIVE, self._now
        )
        if record.unresponsive_since is None:
            record.grace_used_s = 0.0
        if isinstance(observation, PublisherStats):
            record.retired_at = held_since(
                record.retired_at, observation.draining or record.retired_at is not None, self._now
            )
            record.disconnected_since = held_since(
                record.disconnected_since, not observation.connected, self._now
            )
        return record

    def on_created(self, actor: ActorId) -> None:
        """Doubles the time until the next attempt, up to RETRY_MAX_S, until the actor answers."""
        attempts = self._attempts.get(actor, 0)
        self._attempts[actor] = attempts + 1
        self._not_before[actor] = self._now + min(RETRY_MAX_S, RETRY_S * 2**attempts)
        self._actors[actor] = _ActorRecord(starting_since=self._now)

    def on_retired(self, publisher: str) -> None:
        self._actors[ActorId(Role.PUBLISHER, publisher)].retired_at = self._now

    def on_removed(self, actor: ActorId) -> None:
        self._actors.pop(actor, None)

    def observed(
        self,
        revisions: Mapping[ActorId, str],
        drains: Mapping[ActorId, bool],
        demand_per_s: Mapping[str, float],
    ) -> Observed:
        """`drains` has an entry for each drain that was begun: whether it is over."""
        streams: dict[str, ObservedStream] = {}
        twins: dict[str, ObservedStream] = {}
        publishers = {}
        for actor, record in self._actors.items():
            revision, drained = revisions.get(actor, ""), drains.get(actor)
            if actor.role is Role.STREAM:
                streams[actor.key] = self._stream(record, revision, drained)
            elif actor.role is Role.TWIN:
                twins[actor.key] = self._stream(record, revision, drained)
            else:
                demand = demand_per_s.get(actor.key, 0.0)
                publishers[actor.key] = self._publisher(record, revision, drained, demand)
        not_before = dict(self._not_before)
        return Observed(streams=streams, publishers=publishers, not_before=not_before, twins=twins)

    def _stream(self, record: _ActorRecord, revision: str, drained: bool | None) -> ObservedStream:
        stats = record.stats if isinstance(record.stats, StreamStats) else None
        seen = record.last_observed
        # Nearly always nothing that matters here has changed, and the object of the last observation is
        # reused.
        if (
            seen is not None
            and stats is not None
            and record.silence is None
            and stats.state not in _ENDING
            and (seen.publisher, seen.assignment_version, seen.revision, seen.drained, seen.is_standby)
            == (stats.publisher, stats.assignment_version, revision, drained, stats.leg is LegState.WARM)
        ):
            return seen
        found = self._observe_stream(record, stats, revision, drained)
        record.last_observed = None if record.silence is not None or found.stopped else found
        return found

    def _observe_stream(
        self, record: _ActorRecord, stats: StreamStats | None, revision: str, drained: bool | None
    ) -> ObservedStream:
        return ObservedStream(
            revision=revision,
            silence=record.silence,
            unresponsive_s=self._unresponsive_s(record),
            drained=drained,
            stopped=stats is not None and stats.state in _ENDING,
            publisher=stats.publisher if stats else None,
            assignment_version=stats.assignment_version if stats else 0,
            is_standby=stats is not None and stats.leg is LegState.WARM,
        )

    def _publisher(
        self, record: _ActorRecord, revision: str, drained: bool | None, demand_per_s: float
    ) -> ObservedPublisher:
        return ObservedPublisher(
            revision=revision,
            silence=record.silence,
            unresponsive_s=self._unresponsive_s(record),
            drained=drained,
            retired_s=None if record.retired_at is None else self._seconds(record.retired_at),
            starting_s=self._seconds(record.starting_since),
            demand_per_s=demand_per_s,
        )

    def _seconds(self, since: float | None) -> float:
        return 0.0 if since is None else self._now - since

    def _unresponsive_s(self, record: _ActorRecord) -> float:
        return max(0.0, self._seconds(record.unresponsive_since) - record.grace_used_s)

    def endpoints(self) -> dict[str, PublisherEndpoint]:
        """The publishers that may get streams: not those that start, leave, or are the only ones without
        NATS."""
        serving = {
            record.stats.publisher: record
            for record in self._actors.values()
            if isinstance(record.stats, PublisherStats)
            and record.silence is not Silence.STARTING
            and self._seconds(record.unresponsive_since) < UNRESPONSIVE_LIMIT_S
            and record.retired_at is None
        }
        connected = {name: record for name, record in serving.items() if not self._is_disconnected(record)}
        fast = {name: record for name, record in connected.items() if not self._is_avoided(record)}
        return {name: _endpoint(record) for name, record in (fast or connected or serving).items()}

    def _is_avoided(self, record: _ActorRecord) -> bool:
        return record.slow_until is not None and self._now < record.slow_until

    def _is_disconnected(self, record: _ActorRecord) -> bool:
        return self._seconds(record.disconnected_since) >= DISCONNECTED_LIMIT_S

    def streams(self) -> list[StreamStats]:
        """The last stats of each, also of those that are silent now; of two instances, those of the active
        one."""
        instances = {
            actor: record.stats
            for actor, record in self._actors.items()
            if isinstance(record.stats, StreamStats)
        }
        if not any(actor.role is Role.TWIN for actor in instances):
            return list(instances.values())
        silent = {actor for actor in instances if self._actors[actor].silence is not None}
        return merged(instances, silent)

    def nodes_of_instances(self, key: str) -> dict[Role, str]:
        """The nodes where the instances of a critical stream were when they last answered."""
        records = {role: self._actors.get(ActorId(role, key)) for role in (Role.STREAM, Role.TWIN)}
        return {
            role: record.stats.node
            for role, record in records.items()
            if record is not None and isinstance(record.stats, StreamStats)
        }

    def unreachable(self) -> tuple[str, ...]:
        """Streams and publishers that do not answer; of a critical stream, both instances or one."""
        found = []
        for actor in self.silences():
            other = other_instance(actor)
            other_record = self._actors.get(other) if other else None
            has_other = other_record is not None and other_record.silence is None
            found.append(f"an instance of {actor.key}" if has_other else actor.key)
        return tuple(dict.fromkeys(found))

    def publishers(self) -> list[PublisherStats]:
        return [record.stats for record in self._actors.values() if isinstance(record.stats, PublisherStats)]

    def silences(self) -> dict[ActorId, Silence]:
        return {actor: record.silence for actor, record in self._actors.items() if record.silence is not None}

    def problems(self) -> list[str]:
        """What keeps actors from starting or events from reaching NATS, as sentences."""
        found = [stats.problem for stats in self.streams() if stats.problem]
        found += self._uncovered.problems(self._now)
        found += self._publisher_problems()
        found += self._stream_problems()
        for actor, record in self._actors.items():
            waited_s = self._seconds(record.starting_since)
            if waited_s >= SLOW_START_S:
                found.append(f"{actor} has not started for {waited_s:.0f} s; is there a CPU left for it?")
        for actor, attempts in self._attempts.items():
            if attempts > 1:
                found.append(f"{actor} failed to start {attempts - 1} times; its log says why")
        return found

    def _publisher_problems(self) -> list[str]:
        found = []
        for record in self._actors.values():
            stats = record.stats
            if not isinstance(stats, PublisherStats) or record.retired_at is not None:
                continue
            if self._is_disconnected(record):
                gone_s = self._seconds(record.disconnected_since)
                found.append(
                    f"publisher {stats.publisher} is without NATS for {gone_s:.0f} s: {stats.last_error}"
                )
            elif self._is_avoided(record):
                found.append(f"publisher {stats.publisher} has a slow way to NATS; its streams use others")
        return found

    def _stream_problems(self) -> list[str]:
        errors = {stats.publisher: stats.last_error for stats in self.publishers()}
        found = []
        for stats in self.streams():
            if stats.backlog_age_s >= BEHIND_LIMIT_S:
                error = errors.get(stats.publisher or "", "")
                last = f"; the last error of {stats.publisher} was: {error}" if error else ""
                found.append(f"{stats.key} is {stats.backlog_age_s:.0f} s behind{last}")
        return found


def _use_grace(record: _ActorRecord, grace: ReplacementGrace, actor: ActorId, elapsed_s: float) -> None:
    epoch = record.stats.epoch if isinstance(record.stats, StreamStats) else None
    if record.grace_used_s < grace.limit_s(actor, epoch):
        record.grace_used_s += elapsed_s


def _slow_publishers(waits_ms: Mapping[str, float]) -> set[str]:
    """Those whose oldest message waits much longer than the median of the others."""
    ordered = sorted(waits_ms.values())
    long = {name: ms for name, ms in waits_ms.items() if ms > SLOW_WAIT_MS and len(ordered) > 1}
    return {name for name, ms in long.items() if ms > SLOW_FACTOR * _median_without(ordered, ms)}


def _median_without(ordered: list[float], value: float) -> float:
    """The median of `ordered` without one occurrence of `value`, which is in it."""
    index, count = bisect_left(ordered, value), len(ordered) - 1
    low, high = (ordered[at + (at >= index)] for at in ((count - 1) // 2, count // 2))
    return (low + high) / 2


def _endpoint(record: _ActorRecord) -> PublisherEndpoint:
    stats = record.stats
    assert isinstance(stats, PublisherStats)
    return PublisherEndpoint(
        publisher=stats.publisher,
        node=stats.node,
        unix_path=stats.unix_path,
        tcp_address=stats.tcp_address,
    )
