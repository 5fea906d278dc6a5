"""Which publisher serves which stream: moves little, spreads by measured demand, and sets a flood apart.

A stream weighs its demand as a share of a publisher's capacity, plus a base for being there at all, so that
idle streams spread evenly too. A stream that fills a publisher gets it to itself and the calm ones move.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf

from relay.control.endpoint_ring import _ring
from relay.model.assignment import Assignment, PublisherEndpoint

BASE_WEIGHT = 0.01
# A stream of this weight gets a publisher to itself, and keeps it until it weighs less than the second.
EXCLUSIVE_ABOVE = 0.6
SHARED_BELOW = 0.3
# A busy publisher sheds streams to one that has this much less to do.
BUSY = 0.5
WORTH_MOVING = 0.2
# A stream as heavy as the whole gap would only turn the two around.
MAX_MOVED_SHARE_OF_GAP = 0.75
# A stream that fled a failed publisher, or was moved for balance, stays for this long unless its publisher
# goes: a publisher that comes and goes must not drag streams along every time.
STAY_S = 10.0


@dataclass(frozen=True, slots=True)
class Placement:
    """`since` is monotonic seconds, minus infinity for a stream that may move at any time."""

    publisher: str
    since: float = -inf


def assign(
    demand: Mapping[str, float],
    publishers: Collection[str],
    capacity_per_s: float,
    current: Mapping[str, Placement],
    now: float,
) -> dict[str, Placement]:
    """Every stream of `demand` (events per second) gets one of `publishers`; empty when there is none."""
    if not publishers:
        return {}
    weights = {stream: BASE_WEIGHT + rate / capacity_per_s for stream, rate in demand.items()}
    pool = _Pool(weights, publishers, now)
    pool.place([stream for stream in sorted(demand) if not pool.keep(stream, current.get(stream))])
    exclusive = pool.set_fillers_apart()
    pool.level([publisher for publisher in sorted(publishers) if publisher not in exclusive])
    return pool.placed


class _Pool:
    """The publishers with their streams, while one assignment is worked out."""

    def __init__(self, weights: Mapping[str, float], publishers: Collection[str], now: float) -> None:
        self.placed: dict[str, Placement] = {}
        self._weights = weights
        self._now = now
        self._streams: dict[str, set[str]] = {publisher: set() for publisher in sorted(publishers)}
        self._loads = dict.fromkeys(self._streams, 0.0)

    def keep(self, stream: str, placement: Placement | None) -> bool:
        if placement is None or placement.publisher not in self._streams:
            return False
        self._put(stream, placement)
        return True

    def place(self, homeless: list[str]) -> None:
        """The heaviest first, each where there is least to do. They may move on at once."""
        lightest = [(load, publisher) for publisher, load in self._loads.items()]
        heapq.heapify(lightest)
        for stream in sorted(homeless, key=lambda stream: -self._weights[stream]):
            publisher = lightest[0][1]
            self._put(stream, Placement(publisher))
            heapq.heapreplace(lightest, (self._loads[publisher], publisher))

    def set_fillers_apart(self) -> set[str]:
        """The publishers that a filling stream has to itself. One publisher is always left to the others."""
        fillers = self._fillers()
        calm = len(self.placed) > len(fillers)
        room = len(self._streams) - 1 if calm else len(self._streams)
        exclusive: set[str] = set()
        for stream in fillers[:room]:
            exclusive.add(self._own_publisher(stream, exclusive))
        self._clear_out(exclusive, set(fillers[:room]))
        return exclusive

    def _fillers(self) -> list[str]:
        heavy = (stream for stream, weight in self._weights.items() if weight >= SHARED_BELOW)
        found = [stream for stream in heavy if self._weights[stream] >= self._filling(stream)]
        return sorted(found, key=lambda stream: (-self._weights[stream], stream))

    def _filling(self, stream: str) -> float:
        alone = len(self._streams[self.placed[stream].publisher]) == 1
        return SHARED_BELOW if alone else EXCLUSIVE_ABOVE

    def _own_publisher(self, stream: str, taken: set[str]) -> str:
        publisher = self.placed[stream].publisher
        if publisher not in taken or not self._movable(stream):
            return publisher
        free = [other for other in self._streams if other not in taken]
        publisher = min(free, key=lambda other: (self._loads[other], other))
        self._move(stream, publisher)
        return publisher

    def _clear_out(self, exclusive: set[str], fillers: set[str]) -> None:
        others = [(load, publisher) for publisher, load in self._loads.items() if publisher not in exclusive]
        heapq.heapify(others)
        for publisher in sorted(exclusive) if others else ():
            for stream in sorted(self._streams[publisher] - fillers):
                if self._movable(stream):
                    target = others[0][1]
                    self._move(stream, target)
                    heapq.heapreplace(others, (self._loads[target], target))

    def level(self, publishers: list[str]) -> None:
        """Move streams from the heaviest to the lightest while somebody is crowded or busy."""
        crowded = self._crowded(publishers)
        donors = [(-self._loads[publisher], publisher) for publisher in publishers]
        receivers = [(self._loads[publisher], publisher) for publisher in publishers]
        heapq.heapify(donors)
        heapq.heapify(receivers)
        while donors and receivers:
            donor, receiver = donors[0][1], receivers[0][1]
            gap = self._loads[donor] - self._loads[receiver]
            if not (crowded or (self._loads[donor] > BUSY and gap > WORTH_MOVING)):
                return
            stream = self._to_shed(donor, gap)
            if stream is None:
                # Receivers only get heavier, so this donor finds none later either.
                heapq.heappop(donors)
                continue
            self._move(stream, receiver)
            heapq.heapreplace(donors, (-self._loads[donor], donor))
            heapq.heapreplace(receivers, (self._loads[receiver], receiver))

    def _crowded(self, publishers: list[str]) -> bool:
        """Judged by numbers, which do not waver as rates do."""
        counts = [len(self._streams[publisher]) for publisher in publishers]
        return bool(counts) and max(counts) >= 2 * min(counts) + 2

    def _to_shed(self, donor: str, gap: float) -> str | None:
        """The heaviest stream whose move makes the two clearly more alike."""
        most = MAX_MOVED_SHARE_OF_GAP * gap
        fitting = [s for s in self._streams[donor] if self._weights[s] <= most and self._movable(s)]
        return min(fitting, key=lambda stream: (-self._weights[stream], stream)) if fitting else None

    def _movable(self, stream: str) -> bool:
        return self._now - self.placed[stream].since >= STAY_S

    def _move(self, stream: str, publisher: str) -> None:
        left = self.placed[stream].publisher
        self._streams[left].discard(stream)
        self._loads[left] -= self._weights[stream]
        self._put(stream, Placement(publisher, self._now))

    def _put(self, stream: str, placement: Placement) -> None:
        self.placed[stream] = placement
        self._streams[placement.publisher].add(stream)
        self._loads[placement.publisher] += self._weights[stream]


def keep_failed_over(
    placed: Mapping[str, Placement],
    published: Mapping[str, Assignment],
    used: Mapping[str, tuple[str, int]],
    publishers: Collection[str],
    now: float,
) -> dict[str, Placement]:
    """Streams that left a failed publisher stay where they went, instead of moving twice.

    `used` gives the publisher that serves each stream and the assignment's version that the stream knows:
    before it knows the latest one, it says nothing about a failure.
    """
    adopted = dict(placed)
    failed = [stream for stream, placement in placed.items() if placement.publisher not in publishers]
    for stream in failed:
        publisher, version = used.get(stream, ("", 0))
        known = stream in published and version == published[stream].version
        if known and publisher in publishers:
            adopted[stream] = Placement(publisher, now)
    return adopted


def publish(
    published: Mapping[str, Assignment],
    placed: Mapping[str, Placement],
    endpoints: Mapping[str, PublisherEndpoint],
    reported_version: int = 0,
) -> dict[str, Assignment]:
    """The assignments that differ from the published ones, with a version above all of those.

    `reported_version` is the highest that any stream reports: it counts too, in case what was published is
    forgotten. Every publisher in `placed` has an endpoint.
    """
    version = 1 + max(reported_version, *(made.version for made in published.values()), 0)
    ring = _ring(tuple(endpoints[name] for name in sorted(endpoints)))
    changed = {}
    for stream, placement in placed.items():
        publisher, before = placement.publisher, published.get(stream)
        chosen = ring.choice(stream, publisher)
        if before is not None and before.endpoints is chosen and before.publisher == publisher:
            continue
        if before is None or (before.publisher, before.endpoints) != (publisher, chosen):
            changed[stream] = Assignment(version=version, publisher=publisher, endpoints=chosen)
    return changed
