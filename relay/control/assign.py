"""Which publisher serves which stream: moves few streams, balances measured demand, isolates a heavy stream.

A stream's weight is its demand as a share of a publisher's capacity, plus BASE_WEIGHT, so that idle streams
are spread evenly too. A stream that fills a publisher gets it to itself, and the light ones move elsewhere.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf

from relay.control.endpoint_ring import endpoint_ring
from relay.model.assignment import Assignment, PublisherEndpoint

BASE_WEIGHT = 0.01
# A stream of the first weight gets a publisher to itself, and keeps it until its weight is below the second.
EXCLUSIVE_ABOVE = 0.6
SHARED_BELOW = 0.3
# A publisher with a load above BUSY gives streams to one whose load is lower by more than WORTH_MOVING.
BUSY = 0.5
WORTH_MOVING = 0.2
# As a share of the difference between two loads. A stream that weighs nearly the whole difference would only
# make the lighter publisher the heavier one, and be moved back later.
MAX_MOVED_SHARE = 0.75
# A stream that failed over, or was moved for balance, stays for this long unless its publisher ends.
# Otherwise a publisher that keeps failing and returning would move its streams each time.
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
    pool = _Draft(weights, publishers, now)
    pool.place([stream for stream in sorted(demand) if not pool.keep(stream, current.get(stream))])
    exclusive = pool.set_exclusive_streams_apart()
    pool.level([publisher for publisher in sorted(publishers) if publisher not in exclusive])
    return pool.placed


class _Draft:
    """An assignment that is being computed: the publishers with their streams and loads."""

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

    def place(self, unplaced: list[str]) -> None:
        """The heaviest first, each on the publisher with the lowest load. They may be moved again at once."""
        lightest = [(load, publisher) for publisher, load in self._loads.items()]
        heapq.heapify(lightest)
        for stream in sorted(unplaced, key=lambda stream: -self._weights[stream]):
            publisher = lightest[0][1]
            self._put(stream, Placement(publisher))
            heapq.heapreplace(lightest, (self._loads[publisher], publisher))

    def set_exclusive_streams_apart(self) -> set[str]:
        """Give each stream that fills a publisher one to itself, and return these publishers.

        One publisher is always left to the other streams.
        """
        exclusive_streams = self._exclusive_streams()
        has_light = len(self.placed) > len(exclusive_streams)
        room = len(self._streams) - 1 if has_light else len(self._streams)
        exclusive: set[str] = set()
        for stream in exclusive_streams[:room]:
            exclusive.add(self._publisher_for(stream, exclusive))
        self._clear_out(exclusive, set(exclusive_streams[:room]))
        return exclusive

    def _exclusive_streams(self) -> list[str]:
        heavy = (stream for stream, weight in self._weights.items() if weight >= SHARED_BELOW)
        found = [stream for stream in heavy if self._weights[stream] >= self._exclusive_above(stream)]
        return sorted(found, key=lambda stream: (-self._weights[stream], stream))

    def _exclusive_above(self, stream: str) -> float:
        alone = len(self._streams[self.placed[stream].publisher]) == 1
        return SHARED_BELOW if alone else EXCLUSIVE_ABOVE

    def _publisher_for(self, stream: str, taken: set[str]) -> str:
        publisher = self.placed[stream].publisher
        if publisher not in taken or not self._movable(stream):
            return publisher
        free = [other for other in self._streams if other not in taken]
        publisher = min(free, key=lambda other: (self._loads[other], other))
        self._move(stream, publisher)
        return publisher

    def _clear_out(self, exclusive: set[str], exclusive_streams: set[str]) -> None:
        others = [(load, publisher) for publisher, load in self._loads.items() if publisher not in exclusive]
        heapq.heapify(others)
        for publisher in sorted(exclusive) if others else ():
            for stream in sorted(self._streams[publisher] - exclusive_streams):
                if self._movable(stream):
                    target = others[0][1]
                    self._move(stream, target)
                    heapq.heapreplace(others, (self._loads[target], target))

    def level(self, publishers: list[str]) -> None:
        """Move streams from the heaviest publisher to the lightest while they differ too much."""
        uneven = self._counts_are_uneven(publishers)
        donors = [(-self._loads[publisher], publisher) for publisher in publishers]
        receivers = [(self._loads[publisher], publisher) for publisher in publishers]
        heapq.heapify(donors)
        heapq.heapify(receivers)
        while donors and receivers:
            donor, receiver = donors[0][1], receivers[0][1]
            difference = self._loads[donor] - self._loads[receiver]
            if not (uneven or (self._loads[donor] > BUSY and difference > WORTH_MOVING)):
                return
            stream = self._best_to_move(donor, difference)
            if stream is None:
                # Receivers only get heavier, so this donor will not find one later either.
                heapq.heappop(donors)
                continue
            self._move(stream, receiver)
            heapq.heapreplace(donors, (-self._loads[donor], donor))
            heapq.heapreplace(receivers, (self._loads[receiver], receiver))

    def _counts_are_uneven(self, publishers: list[str]) -> bool:
        """By the number of streams, which does not fluctuate as their rates do."""
        counts = [len(self._streams[publisher]) for publisher in publishers]
        return bool(counts) and max(counts) >= 2 * min(counts) + 2

    def _best_to_move(self, donor: str, difference: float) -> str | None:
        """The heaviest stream whose move clearly reduces the difference between the two loads."""
        most = MAX_MOVED_SHARE * difference
        fitting = [s for s in self._streams[donor] if self._weights[s] <= most and self._movable(s)]
        return min(fitting, key=lambda stream: (-self._weights[stream], stream)) if fitting else None

    def _movable(self, stream: str) -> bool:
        return self._now - self.placed[stream].since >= STAY_S

    def _move(self, stream: str, publisher: str) -> None:
        before = self.placed[stream].publisher
        self._streams[before].discard(stream)
        self._loads[before] -= self._weights[stream]
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
    """Streams that left a failed publisher by themselves stay where they went, instead of moving twice.

    `used` gives the publisher that serves each stream and the version of the assignment that it has. A stream
    that does not have the latest one may use another publisher for that reason alone: it is left out.
    """
    kept = dict(placed)
    failed = [stream for stream, placement in placed.items() if placement.publisher not in publishers]
    for stream in failed:
        publisher, version = used.get(stream, ("", 0))
        known = stream in published and version == published[stream].version
        if known and publisher in publishers:
            kept[stream] = Placement(publisher, now)
    return kept


def publish(
    published: Mapping[str, Assignment],
    placed: Mapping[str, Placement],
    endpoints: Mapping[str, PublisherEndpoint],
    reported_version: int = 0,
) -> dict[str, Assignment]:
    """The assignments that differ from the published ones, with a version above all of those.

    `reported_version` is the highest version that any stream reports; it covers the case that the published
    assignments were lost from the store. Every publisher in `placed` must have an endpoint.
    """
    version = 1 + max(reported_version, *(made.version for made in published.values()), 0)
    ring = endpoint_ring(tuple(endpoints[name] for name in sorted(endpoints)))
    changed = {}
    for stream, placement in placed.items():
        publisher, before = placement.publisher, published.get(stream)
        chosen = ring.choice(stream, publisher)
        if before is not None and before.endpoints is chosen and before.publisher == publisher:
            continue
        if before is None or (before.publisher, before.endpoints) != (publisher, chosen):
            changed[stream] = Assignment(version=version, publisher=publisher, endpoints=chosen)
    return changed
