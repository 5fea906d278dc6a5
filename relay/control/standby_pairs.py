"""The two legs of each critical stream, as the controller sees them: which is hot, and where they are. Pure.

Which of them is hot the legs settle themselves; here it is only told, and the two are kept on different nodes
where there are several.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from relay.model.actors import ActorId, Role
from relay.model.stats import LegState, StreamStats

# A leg is back within seconds, and soon remembers what is not stored.
UNCOVERED_LIMIT_S = 20.0
# Nodes come one after the other when a cluster starts.
COLOCATED_LIMIT_S = 30.0


def other_instance(actor: ActorId) -> ActorId | None:
    """None for what is no leg."""
    match actor.role:
        case Role.STREAM:
            return ActorId(Role.TWIN, actor.key)
        case Role.TWIN:
            return ActorId(Role.STREAM, actor.key)
        case _:
            return None


def merged(legs: Mapping[ActorId, StreamStats], silent: Collection[ActorId]) -> list[StreamStats]:
    """One for each stream: its hot leg, or the one that was, with its warm leg unless that is silent."""
    by_key: dict[str, list[ActorId]] = {}
    for actor in legs:
        by_key.setdefault(actor.key, []).append(actor)
    return [_merged(actors, legs, silent) for actors in by_key.values()]


def _merged(
    actors: Sequence[ActorId], legs: Mapping[ActorId, StreamStats], silent: Collection[ActorId]
) -> StreamStats:
    chosen = max(actors, key=lambda actor: (legs[actor].leg is LegState.HOT, legs[actor].epoch))
    others = (legs[actor].warm for actor in actors if actor != chosen and actor not in silent)
    warm = next((other for other in others if other is not None), None)
    return replace(legs[chosen], warm=warm) if legs[chosen].critical else legs[chosen]


@dataclass(slots=True)
class UncoveredStreams:
    """Since when critical streams have had no warm leg that could take over without a loss."""

    _since: dict[str, float] = field(default_factory=dict)

    def update(self, streams: Iterable[StreamStats], now: float) -> None:
        bare = (one for one in streams if one.critical and not (one.warm and one.warm.ready))
        keys = [one.key for one in bare]
        self._since = {key: self._since.get(key, now) for key in keys}

    def problems(self, now: float) -> list[str]:
        return [
            f"{key} has had no warm leg that could take over for {now - since:.0f} s"
            for key, since in self._since.items()
            if now - since >= UNCOVERED_LIMIT_S
        ]


def choose_node(nodes: Collection[str], other: str | None, used: Iterable[str]) -> str | None:
    """Where a leg goes: not where the `other` one is, if there is a choice, and to the one least `used`."""
    legs = Counter(used)
    apart = [node for node in nodes if node != other] or list(nodes)
    return min(apart, key=lambda node: (legs[node], node), default=None)


@dataclass(slots=True)
class ColocatedPairs:
    """Which pairs share a node although there is another one, and for how long. A move is tried once for each
    set of nodes: one that has no room is no better the second time."""

    _since: dict[str, float] = field(default_factory=dict)
    _tried: dict[str, frozenset[str]] = field(default_factory=dict)

    def update(self, key: str, where: Mapping[Role, str], nodes: frozenset[str], now: float) -> bool:
        """Whether the warm leg of this stream should be made anew, elsewhere."""
        together = len(where) == 2 and len(set(where.values())) == 1
        if not together or not nodes - set(where.values()) or self._tried.get(key) == nodes:
            self._since.pop(key, None)
            return False
        if now - self._since.setdefault(key, now) < COLOCATED_LIMIT_S:
            return False
        self._tried[key] = nodes
        return True
