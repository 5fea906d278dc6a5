"""What to do next so that the observed actors become the desired ones: pure, and safe to repeat.

Nothing waits here: what takes time (a start, a drain) shows in the next observation. A stream whose settings
changed is drained, removed, then found missing and created; an actor that does not answer is removed, then
found missing and created.

A critical stream has two instances, its actor and a twin. When both are to go, the standby goes first,
because it would become active once the active one has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import Assignment

# Three observations, one a second. A frozen process delays its stream; replacing it costs the stream a
# reconnect.
UNRESPONSIVE_LIMIT_S = 3.0
# Streams move away from a retired publisher by themselves; after this long it is drained in any case.
RETIRE_GRACE_S = 10.0
# A publisher that has not started after this long waits for room in the cluster. The publishers that it is to
# replace may occupy that room, so they are retired then.
UNSCHEDULABLE_AFTER_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedStream:
    """An instance of a stream. `drained` is None when no drain was begun, else whether it is over. A
    `stopped` instance never continues."""

    revision: str
    silence: Silence | None = None
    unresponsive_s: float = 0.0
    drained: bool | None = None
    stopped: bool = False
    publisher: str | None = None
    assignment_version: int = 0
    is_standby: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPublisher:
    """`retired_s` is how long it has been leaving, None when it stays; `starting_s` is 0 once it runs."""

    revision: str
    silence: Silence | None = None
    unresponsive_s: float = 0.0
    drained: bool | None = None
    retired_s: float | None = None
    starting_s: float = 0.0
    demand_per_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Actors that are dead for good are missing here. `not_before` delays what failed lately."""

    streams: Mapping[str, ObservedStream]
    publishers: Mapping[str, ObservedPublisher]
    not_before: Mapping[ActorId, float] = field(default_factory=dict)
    twins: Mapping[str, ObservedStream] = field(default_factory=dict)

    def instances(self) -> Iterator[tuple[Role, str, ObservedStream]]:
        """The role, key and observation of every instance: of each stream its actor, and its twin if it has
        one."""
        for role, found in ((Role.STREAM, self.streams), (Role.TWIN, self.twins)):
            for key, instance in found.items():
                yield role, key, instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """`streams` gives the revision of each stream's settings; the `critical` ones among them have twins."""

    streams: Mapping[str, str]
    publishers: int
    critical: frozenset[str] = frozenset()
    publisher_revision: str = ""
    assignments: Mapping[str, Assignment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Create:
    actor: ActorId


@dataclass(frozen=True, slots=True)
class Assign:
    actor: ActorId
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Retire:
    """Assign no streams to the publisher any more, and move those that it has."""

    publisher: str


@dataclass(frozen=True, slots=True)
class Drain:
    actor: ActorId


@dataclass(frozen=True, slots=True)
class Remove:
    actor: ActorId


Instruction = Create | Assign | Retire | Drain | Remove


def reconcile(desired: Desired, observed: Observed, now: float) -> list[Instruction]:
    """Empty when the observed state is the desired one, or when there is nothing to do but wait."""
    # Publishers first: actors start one after the other, and streams without publishers only build up a
    # backlog.
    creations = [*_missing_publishers(desired, observed), *_missing_streams(desired, observed)]
    due = [one for one in creations if now >= observed.not_before.get(one.actor, now)]
    return [
        *due,
        *_stream_steps(desired, observed),
        *_retirements(desired, observed),
        *_departures(desired, observed),
    ]


def unsettled(desired: Desired, observed: Observed) -> tuple[ActorId, ...]:
    """The actors that are not yet, or no longer, what is desired; empty once a change is complete."""
    created = [
        one.actor for one in (*_missing_publishers(desired, observed), *_missing_streams(desired, observed))
    ]
    streams = [
        ActorId(role, key)
        for role, key, instance in observed.instances()
        if not _is_desired(role, key, instance, desired) or instance.silence is not None or instance.stopped
    ]
    leaving = {one.publisher for one in _retirements(desired, observed)}
    staying = set(_staying(desired, observed)) - leaving
    publishers = [
        ActorId(Role.PUBLISHER, name)
        for name, publisher in observed.publishers.items()
        if name not in staying or publisher.silence is not None
    ]
    return (*created, *streams, *publishers)


def _missing_streams(desired: Desired, observed: Observed) -> Iterator[Create]:
    for key in desired.streams:
        if key not in observed.streams:
            yield Create(ActorId(Role.STREAM, key))
        if key in desired.critical and key not in observed.twins:
            yield Create(ActorId(Role.TWIN, key))


def _is_desired(role: Role, key: str, instance: ObservedStream, desired: Desired) -> bool:
    return desired.streams.get(key) == instance.revision and (role is Role.STREAM or key in desired.critical)


def _stream_steps(desired: Desired, observed: Observed) -> Iterator[Instruction]:
    for role, key, instance in observed.instances():
        if _is_desired(role, key, instance, desired):
            one = _keep(role, key, instance, desired)
        elif instance.is_standby or not _standby_leaves_first(role, key, desired, observed):
            one = _leave(ActorId(role, key), instance)
        else:
            one = None
        if one is not None:
            yield one


def _standby_leaves_first(role: Role, key: str, desired: Desired, observed: Observed) -> bool:
    """Whether the other instance is a standby that has to go; this one waits until it has ended."""
    other_role = Role.STREAM if role is Role.TWIN else Role.TWIN
    other = (observed.twins if role is Role.STREAM else observed.streams).get(key)
    return other is not None and other.is_standby and not _is_desired(other_role, key, other, desired)


def _keep(role: Role, key: str, instance: ObservedStream, desired: Desired) -> Instruction | None:
    if instance.unresponsive_s >= UNRESPONSIVE_LIMIT_S or (
        instance.stopped and instance.drained is not False
    ):
        return Remove(ActorId(role, key))
    assignment = desired.assignments.get(key)
    if (
        assignment is None
        or instance.silence is not None
        or instance.assignment_version == assignment.version
    ):
        return None
    return Assign(ActorId(role, key), assignment)


def _leave(actor: ActorId, found: ObservedStream | ObservedPublisher) -> Instruction | None:
    """Drain what can be drained, remove the rest."""
    if found.drained or found.silence is Silence.STARTING or found.unresponsive_s >= UNRESPONSIVE_LIMIT_S:
        return Remove(actor)
    return Drain(actor) if found.drained is None else None


def _staying(desired: Desired, observed: Observed) -> list[str]:
    """Publishers that neither leave nor were made for other settings."""
    return [
        name
        for name, publisher in observed.publishers.items()
        if publisher.retired_s is None and publisher.revision == desired.publisher_revision
    ]


def _missing_publishers(desired: Desired, observed: Observed) -> Iterator[Create]:
    missing = desired.publishers - len(_staying(desired, observed))
    free = (name for name in (f"p{number}" for number in count()) if name not in observed.publishers)
    for _ in range(missing):
        yield Create(ActorId(Role.PUBLISHER, next(free)))


def _retirements(desired: Desired, observed: Observed) -> Iterator[Retire]:
    staying = _staying(desired, observed)
    serving = [name for name in staying if observed.publishers[name].silence is None]
    by_use = sorted(staying, key=lambda name: _use(name, observed.publishers[name]))
    for name in by_use[: max(0, len(staying) - desired.publishers)]:
        yield Retire(name)
    no_room = any(observed.publishers[name].starting_s >= UNSCHEDULABLE_AFTER_S for name in staying)
    if len(serving) < desired.publishers and not (serving and no_room):
        return
    for name, publisher in observed.publishers.items():
        outdated = publisher.revision != desired.publisher_revision
        if outdated and publisher.retired_s is None:
            yield Retire(name)


def _use(name: str, publisher: ObservedPublisher) -> tuple[bool, float, int, str]:
    """The smallest is retired first: one that does not serve yet, then the least used, then the highest
    number."""
    number = int(name[1:]) if name[1:].isdigit() else 0
    return publisher.silence is None, publisher.demand_per_s, -number, name


def _departures(desired: Desired, observed: Observed) -> Iterator[Instruction]:
    used = {
        instance.publisher
        for instances in (observed.streams, observed.twins)
        for instance in instances.values()
    }
    used |= {assignment.publisher for assignment in desired.assignments.values()}
    for name, publisher in observed.publishers.items():
        actor = ActorId(Role.PUBLISHER, name)
        if publisher.retired_s is None:
            if publisher.unresponsive_s >= UNRESPONSIVE_LIMIT_S:
                yield Remove(actor)
        elif name not in used or publisher.retired_s >= RETIRE_GRACE_S or publisher.silence is not None:
            one = _leave(actor, publisher)
            if one is not None:
                yield one
