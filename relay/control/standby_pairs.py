"""The two instances of each critical stream, as the controller sees them: their state, and their nodes; pure.

They decide themselves which of them is active (relay/standby/election.py). Here that is only reported, and
the two are kept on different nodes if there are several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relay.model.actors import ActorId, Role
from relay.model.stats import LegState, StreamStats

# An instance is back within seconds, and soon keeps everything that is not stored yet.
UNCOVERED_LIMIT_S = 20.0
# While a cluster starts, its nodes join one after the other.
COLOCATED_LIMIT_S = 30.0


def other_instance(actor: ActorId) -> ActorId | None:
    """None for an actor that is no instance of a stream."""
    match actor.role:
        case Role.STREAM:
            return ActorId(Role.TWIN, actor.key)
        case Role.TWIN:
            return ActorId(Role.STREAM, actor.key)
        case _:
            return None


def merged(instances: Mapping[ActorId, StreamStats], silent: Collection[ActorId]) -> list[StreamStats]:
    """One for each stream: its active instance, or the last one, with its standby unless that is silent."""
    by_key: dict[str, list[ActorId]] = {}
    for actor in instances:
        by_key.setdefault(actor.key, []).append(actor)
    return [_merged(actors, instances, silent) for actors in by_key.values()]


def _merged(
    actors: Sequence[ActorId], instances: Mapping[ActorId, StreamStats], silent: Collection[ActorId]
) -> StreamStats:
    chosen = max(actors, key=lambda actor: (instances[actor].leg is LegState.HOT, instances[actor].epoch))
    standbys = (instances[actor].warm for actor in actors if actor != chosen and actor not in silent)
    warm = next((standby for standby in standbys if standby is not None), None)
    return replace(instances[chosen], warm=warm) if instances[chosen].critical else instances[chosen]


@dataclass(slots=True)
class UncoveredStreams:
    """Since when critical streams have had no standby instance that could take over without a loss."""

    _since: dict[str, float] = field(default_factory=dict)

    def update(self, streams: Iterable[StreamStats], now: float) -> None:
        keys = [stats.key for stats in streams if stats.critical and not (stats.warm and stats.warm.ready)]
        self._since = {key: self._since.get(key, now) for key in keys}

    def problems(self, now: float) -> list[str]:
        return [
            f"{key} has had no standby instance that could take over for {now - since:.0f} s"
            for key, since in self._since.items()
            if now - since >= UNCOVERED_LIMIT_S
        ]


def choose_node(nodes: Collection[str], peer_node: str | None, used: Iterable[str]) -> str | None:
    """For a new instance: not the node of its peer, if there is a choice, and of the rest the one least
    `used`."""
    counts = Counter(used)
    apart = [node for node in nodes if node != peer_node] or list(nodes)
    return min(apart, key=lambda node: (counts[node], node), default=None)


@dataclass(slots=True)
class ColocatedPairs:
    """Which pairs share a node although there is another one, and since when. A move is tried once for each
    set of nodes: a node without room would refuse again."""

    _since: dict[str, float] = field(default_factory=dict)
    _tried: dict[str, frozenset[str]] = field(default_factory=dict)

    def update(self, key: str, where: Mapping[Role, str], nodes: frozenset[str], now: float) -> bool:
        """Whether the standby instance of this stream should be created again, on another node."""
        together = len(where) == 2 and len(set(where.values())) == 1
        if not together or not nodes - set(where.values()) or self._tried.get(key) == nodes:
            self._since.pop(key, None)
            return False
        if now - self._since.setdefault(key, now) < COLOCATED_LIMIT_S:
            return False
        self._tried[key] = nodes
        return True
