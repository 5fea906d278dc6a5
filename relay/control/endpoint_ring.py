"""Which publishers a stream may fall back to, by consistent hashing; pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

from relay.model.assignment import PublisherEndpoint

# For each stream: its own publisher and those it may fail over to. All of 1,000 would be 100 kB a stream.
MAX_ENDPOINTS = 8

# Positions of each publisher on the ring: enough to spread the streams that leave it over several others.
POSITIONS_PER_PUBLISHER = 4


class EndpointRing:
    """The endpoints of each stream: its own publisher, and the next ones from its position on the ring.

    Adding or removing a publisher changes the choice of only the few streams positioned right before it.
    """

    def __init__(self, endpoints: Sequence[PublisherEndpoint]) -> None:
        self._named = {endpoint.publisher: endpoint for endpoint in endpoints}
        self._all_if_few = endpoints if len(endpoints) <= MAX_ENDPOINTS else None
        points = sorted(
            (_ring_position(f"{endpoint.publisher}/{number}"), endpoint.publisher)
            for endpoint in endpoints
            for number in range(POSITIONS_PER_PUBLISHER)
        )
        self._positions = [position for position, _ in points]
        self._names = [name for _, name in points]
        self._followings: dict[int, list[PublisherEndpoint]] = {}
        # Earlier choices, which are the same as long as the publishers are.
        self._chosen: dict[str, tuple[PublisherEndpoint, ...]] = {}

    def choice(self, stream: str, publisher: str) -> tuple[PublisherEndpoint, ...]:
        chosen = self._chosen.get(stream)
        if chosen is None or chosen[0].publisher != publisher:
            chosen = self._chosen[stream] = self._choose(stream, publisher)
        return chosen

    def _choose(self, stream: str, publisher: str) -> tuple[PublisherEndpoint, ...]:
        own = self._named[publisher]
        following = self._all_if_few or self._following(bisect_left(self._positions, _ring_position(stream)))
        others = [endpoint for endpoint in following if endpoint is not own]
        return (own, *others[: MAX_ENDPOINTS - 1])

    def _following(self, begin: int) -> list[PublisherEndpoint]:
        """The next publishers from there, each once."""
        following = self._followings.get(begin)
        if following is None:
            names: dict[str, None] = {}
            at, count = begin, len(self._names)
            while len(names) < MAX_ENDPOINTS:
                names[self._names[at % count]] = None
                at += 1
            following = [self._named[name] for name in names]
            self._followings[begin] = following
        return following


@lru_cache(maxsize=2)
def endpoint_ring(endpoints: tuple[PublisherEndpoint, ...]) -> EndpointRing:
    return EndpointRing([_shared(endpoint) for endpoint in endpoints])


@lru_cache(maxsize=32_768)
def _ring_position(name: str) -> int:
    return crc32(name.encode())


@lru_cache(maxsize=8192)
def _shared(endpoint: PublisherEndpoint) -> PublisherEndpoint:
    """One object for all that are equal, so that choices are compared by identity first, which is fast."""
    return endpoint
