"""What the controller remembers from look to look, and what it makes of both: pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.control.reconcile import MUTE_LIMIT_S, Observed, ObservedPublisher, ObservedStream
from relay.control.replacement_grace import ReplacementGrace, replacement_grace
from relay.control.standby_pairs import UncoveredStreams, merged, other_instance
from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import PublisherEndpoint
from relay.model.stats import LegState, PublisherStats, StreamState, StreamStats
from relay.ports import Observation

RETRY_S = 1.0
RETRY_MAX_S = 30.0
# Starting takes a second or two on a warm node, and tens of them when the node has to be made first.
SLOW_START_S = 15.0
# For so long a publisher may be without NATS while another one has it; streams leave it after 2 s themselves.
DISCONNECTED_LIMIT_S = 3.0
# A publisher whose own way to NATS is bad: its messages wait so long, and so many times longer than those of
# the others, for so many seconds. Its streams go elsewhere, and come back for a trial after a while.
SLOW_WAIT_MS, SLOW_FACTOR = 500.0, 10.0
SLOW_LIMIT_S = 3.0
SLOW_FOR_S = 60.0
# Events that are not acknowledged for so long are worth a word to people.
BEHIND_LIMIT_S = 3.0


_ENDING = (StreamState.DRAINING, StreamState.STOPPED)


@dataclass(slots=True)
class _ActorRecord:
    """What is known about one actor; the times are None while the condition does not hold."""

    stats: StreamStats | PublisherStats | None = None
    silence: Silence | None = Silence.STARTING
    starting_since: float | None = None
    mute_since: float | None = None
    # The part of that time for which there is an excuse.
    grace_used_s: float = 0.0
    retired_at: float | None = None
    disconnected_since: float | None = None
    slow_s: float = 0.0
    slow_until: float | None = None
    # Of a stream that answers: what it was in the last look.
    last_observed: ObservedStream | None = None


@dataclass(slots=True)
class ClusterView:
    """The actors as they were at the last look. `looked` must be called before anything is asked."""

    _now: float = 0.0
    _actors: dict[ActorId, _ActorRecord] = field(default_factory=dict)
    _attempts: dict[ActorId, int] = field(default_factory=dict)
    _not_before: dict[ActorId, float] = field(default_factory=dict)
    _uncovered: UncoveredStreams = field(default_factory=UncoveredStreams)

    def update(self, observations: Mapping[ActorId, Observation], now: float) -> None:
        elapsed_s, self._now = now - self._now, now
        grounds = replacement_grace(observations)
        self._actors = {
            actor: self._record(actor, look)
            for actor, look in observations.items()
            if look is not Silence.GONE
        }
        for actor, memory in self._actors.items():
            if memory.mute_since is not None:
                _use_grace(memory, grounds, actor, elapsed_s)
        self._compare_speeds(min(elapsed_s, RETRY_S))
        self._uncovered.update(self.streams(), now)

    def _compare_speeds(self, elapsed_s: float) -> None:
        """A publisher that is slow where others are not has a bad way to NATS; all together mean NATS."""
        waits = {stats.publisher: stats.waiting_ms for stats in self.publishers() if stats.connected}
        all_slow = _slow_publishers(waits)
        for memory in self._actors.values():
            if isinstance(memory.stats, PublisherStats):
                slow = memory.stats.publisher in all_slow
                # A connection that is made anew waits for nothing, and is slow a moment later.
                memory.slow_s = max(0.0, memory.slow_s + (elapsed_s if slow else -elapsed_s / 2))
                if memory.slow_s >= SLOW_LIMIT_S:
                    memory.slow_s, memory.slow_until = 0.0, self._now + SLOW_FOR_S

    def _record(self, actor: ActorId, look: Observation) -> _ActorRecord:
        memory = self._actors.get(actor)
        if memory is None:
            memory = _ActorRecord()
        if memory.silence is None and isinstance(look, StreamStats):
            # Nearly every look is this one: it goes on as it was.
            memory.stats = look
            return memory
        if isinstance(look, Silence):
            memory.silence = look
        else:
            memory.silence, memory.stats = None, look
            self._attempts.pop(actor, None)
            self._not_before.pop(actor, None)
        memory.starting_since = self._since(memory.starting_since, look is Silence.STARTING)
        memory.mute_since = self._since(memory.mute_since, look is Silence.MUTE)
        if memory.mute_since is None:
            memory.grace_used_s = 0.0
        if isinstance(look, PublisherStats):
            memory.retired_at = self._since(memory.retired_at, look.draining or memory.retired_at is not None)
            memory.disconnected_since = self._since(memory.disconnected_since, not look.connected)
        return memory

    def _since(self, before: float | None, holds: bool) -> float | None:
        if not holds:
            return None
        return self._now if before is None else before

    def on_created(self, actor: ActorId) -> None:
        """Twice as long between two attempts each time, until the actor answers."""
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
        """`drains` says of each drain that was begun whether it is over."""
        streams: dict[str, ObservedStream] = {}
        twins: dict[str, ObservedStream] = {}
        publishers = {}
        for actor, memory in self._actors.items():
            revision, drained = revisions.get(actor, ""), drains.get(actor)
            if actor.role is Role.STREAM:
                streams[actor.key] = self._stream(memory, revision, drained)
            elif actor.role is Role.TWIN:
                twins[actor.key] = self._stream(memory, revision, drained)
            else:
                demand = demand_per_s.get(actor.key, 0.0)
                publishers[actor.key] = self._publisher(memory, revision, drained, demand)
        not_before = dict(self._not_before)
        return Observed(streams=streams, publishers=publishers, not_before=not_before, twins=twins)

    def _stream(self, memory: _ActorRecord, revision: str, drained: bool | None) -> ObservedStream:
        stats = memory.stats if isinstance(memory.stats, StreamStats) else None
        seen = memory.last_observed
        # Of what matters here nothing has changed in nearly every look.
        if (
            seen is not None
            and stats is not None
            and memory.silence is None
            and stats.state not in _ENDING
            and (seen.publisher, seen.assignment_version, seen.revision, seen.drained, seen.is_standby)
            == (stats.publisher, stats.assignment_version, revision, drained, stats.leg is LegState.WARM)
        ):
            return seen
        found = self._observe_stream(memory, stats, revision, drained)
        memory.last_observed = None if memory.silence is not None or found.stopped else found
        return found

    def _observe_stream(
        self, memory: _ActorRecord, stats: StreamStats | None, revision: str, drained: bool | None
    ) -> ObservedStream:
        return ObservedStream(
            revision=revision,
            silence=memory.silence,
            mute_s=self._mute_s(memory),
            drained=drained,
            stopped=stats is not None and stats.state in _ENDING,
            publisher=stats.publisher if stats else None,
            assignment_version=stats.assignment_version if stats else 0,
            is_standby=stats is not None and stats.leg is LegState.WARM,
        )

    def _publisher(
        self, memory: _ActorRecord, revision: str, drained: bool | None, demand_per_s: float
    ) -> ObservedPublisher:
        return ObservedPublisher(
            revision=revision,
            silence=memory.silence,
            mute_s=self._mute_s(memory),
            drained=drained,
            retired_s=None if memory.retired_at is None else self._seconds(memory.retired_at),
            starting_s=self._seconds(memory.starting_since),
            demand_per_s=demand_per_s,
        )

    def _seconds(self, since: float | None) -> float:
        return 0.0 if since is None else self._now - since

    def _mute_s(self, memory: _ActorRecord) -> float:
        return max(0.0, self._seconds(memory.mute_since) - memory.grace_used_s)

    def endpoints(self) -> dict[str, PublisherEndpoint]:
        """Of the publishers that may get streams: not those that start, leave, or alone are without NATS."""
        serving = {
            memory.stats.publisher: memory
            for memory in self._actors.values()
            if isinstance(memory.stats, PublisherStats)
            and memory.silence is not Silence.STARTING
            and self._seconds(memory.mute_since) < MUTE_LIMIT_S
            and memory.retired_at is None
        }
        able = {name: memory for name, memory in serving.items() if not self._cut_off(memory)}
        swift = {name: memory for name, memory in able.items() if not self._is_spared(memory)}
        return {name: _endpoint(memory) for name, memory in (swift or able or serving).items()}

    def _is_spared(self, memory: _ActorRecord) -> bool:
        return memory.slow_until is not None and self._now < memory.slow_until

    def _cut_off(self, memory: _ActorRecord) -> bool:
        return self._seconds(memory.disconnected_since) >= DISCONNECTED_LIMIT_S

    def streams(self) -> list[StreamStats]:
        """The last answer of each, also of those that are silent now; of two legs, that of the hot one."""
        legs = {
            actor: memory.stats
            for actor, memory in self._actors.items()
            if isinstance(memory.stats, StreamStats)
        }
        if not any(actor.role is Role.TWIN for actor in legs):
            return list(legs.values())
        silent = {actor for actor in legs if self._actors[actor].silence is not None}
        return merged(legs, silent)

    def nodes_of_instances(self, key: str) -> dict[Role, str]:
        """Where the legs of a critical stream were when they last answered."""
        memories = {role: self._actors.get(ActorId(role, key)) for role in (Role.STREAM, Role.TWIN)}
        return {
            role: memory.stats.node
            for role, memory in memories.items()
            if memory is not None and isinstance(memory.stats, StreamStats)
        }

    def unreachable(self) -> tuple[str, ...]:
        """Streams and publishers; of a critical stream, both legs or one."""
        found = []
        for actor in self.silences():
            other = other_instance(actor)
            other_memory = self._actors.get(other) if other else None
            served = other_memory is not None and other_memory.silence is None
            found.append(f"a leg of {actor.key}" if served else actor.key)
        return tuple(dict.fromkeys(found))

    def publishers(self) -> list[PublisherStats]:
        return [memory.stats for memory in self._actors.values() if isinstance(memory.stats, PublisherStats)]

    def silences(self) -> dict[ActorId, Silence]:
        return {actor: memory.silence for actor, memory in self._actors.items() if memory.silence is not None}

    def problems(self) -> list[str]:
        """What keeps actors from starting and events from NATS, as sentences."""
        found = [stats.problem for stats in self.streams() if stats.problem]
        found += self._uncovered.problems(self._now)
        found += self._publisher_problems()
        found += self._stream_problems()
        for actor, memory in self._actors.items():
            waited_s = self._seconds(memory.starting_since)
            if waited_s >= SLOW_START_S:
                found.append(f"{actor} has not started for {waited_s:.0f} s; is there a CPU left for it?")
        for actor, attempts in self._attempts.items():
            if attempts > 1:
                found.append(f"{actor} failed to start {attempts - 1} times; its log says why")
        return found

    def _publisher_problems(self) -> list[str]:
        found = []
        for memory in self._actors.values():
            stats = memory.stats
            if not isinstance(stats, PublisherStats) or memory.retired_at is not None:
                continue
            if self._cut_off(memory):
                away_s = self._seconds(memory.disconnected_since)
                found.append(
                    f"publisher {stats.publisher} is without NATS for {away_s:.0f} s: {stats.last_error}"
                )
            elif self._is_spared(memory):
                found.append(f"publisher {stats.publisher} has a slow way to NATS; its streams use others")
        return found

    def _stream_problems(self) -> list[str]:
        errors = {stats.publisher: stats.last_error for stats in self.publishers()}
        found = []
        for stats in self.streams():
            if stats.backlog_age_s >= BEHIND_LIMIT_S:
                error = errors.get(stats.publisher or "", "")
                said = f"; the last error of {stats.publisher} was: {error}" if error else ""
                found.append(f"{stats.key} is {stats.backlog_age_s:.0f} s behind{said}")
        return found


def _use_grace(memory: _ActorRecord, grounds: ReplacementGrace, actor: ActorId, elapsed_s: float) -> None:
    epoch = memory.stats.epoch if isinstance(memory.stats, StreamStats) else None
    if memory.grace_used_s < grounds.limit_s(actor, epoch):
        memory.grace_used_s += elapsed_s


def _slow_publishers(waits_ms: Mapping[str, float]) -> set[str]:
    """Those that wait much longer than the median of all others."""
    ordered = sorted(waits_ms.values())
    long = {name: ms for name, ms in waits_ms.items() if ms > SLOW_WAIT_MS and len(ordered) > 1}
    return {name for name, ms in long.items() if ms > SLOW_FACTOR * _median_without(ordered, ms)}


def _median_without(ordered: list[float], value: float) -> float:
    """Of what is left of `ordered` without one `value`."""
    place, count = bisect_left(ordered, value), len(ordered) - 1
    low, high = (ordered[at + (at >= place)] for at in ((count - 1) // 2, count // 2))
    return (low + high) / 2


def _endpoint(memory: _ActorRecord) -> PublisherEndpoint:
    stats = memory.stats
    assert isinstance(stats, PublisherStats)
    return PublisherEndpoint(
        publisher=stats.publisher,
        node=stats.node,
        unix_path=stats.unix_path,
        tcp_address=stats.tcp_address,
    )
