"""Which publishers a stream may fall back to, by consistent hashing; pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

from relay.model.assignment import PublisherEndpoint

# Whom a stream may turn to: its own publisher and some others. All of 1,000 would be 100 kB for every stream.
ENDPOINTS = 8


# Of each publisher on the ring from which those others are chosen: enough to share the streams out.
PLACES = 4


class _Ring:
    """Whom each stream may turn to: its own publisher, and the next ones from the stream's place on a ring.

    A publisher more or less changes the choice of the few streams that have their place right before it.
    """

    def __init__(self, endpoints: Sequence[PublisherEndpoint]) -> None:
        self._named = {endpoint.publisher: endpoint for endpoint in endpoints}
        self._few = endpoints if len(endpoints) <= ENDPOINTS else None
        points = sorted(
            (_place(f"{endpoint.publisher}/{number}"), endpoint.publisher)
            for endpoint in endpoints
            for number in range(PLACES)
        )
        self._places = [place for place, _ in points]
        self._names = [name for _, name in points]
        self._windows: dict[int, list[PublisherEndpoint]] = {}
        # What was chosen before: with the same publishers it is chosen again.
        self._chosen: dict[str, tuple[PublisherEndpoint, ...]] = {}

    def choice(self, stream: str, publisher: str) -> tuple[PublisherEndpoint, ...]:
        chosen = self._chosen.get(stream)
        if chosen is None or chosen[0].publisher != publisher:
            chosen = self._chosen[stream] = self._choose(stream, publisher)
        return chosen

    def _choose(self, stream: str, publisher: str) -> tuple[PublisherEndpoint, ...]:
        own = self._named[publisher]
        window = self._few or self._window(bisect_left(self._places, _place(stream)))
        others = [endpoint for endpoint in window if endpoint is not own]
        return (own, *others[: ENDPOINTS - 1])

    def _window(self, begin: int) -> list[PublisherEndpoint]:
        """The next ones from there, each once."""
        window = self._windows.get(begin)
        if window is None:
            names: dict[str, None] = {}
            at, count = begin, len(self._names)
            while len(names) < ENDPOINTS:
                names[self._names[at % count]] = None
                at += 1
            window = [self._named[name] for name in names]
            self._windows[begin] = window
        return window


@lru_cache(maxsize=2)
def _ring(endpoints: tuple[PublisherEndpoint, ...]) -> _Ring:
    return _Ring([_the_same(endpoint) for endpoint in endpoints])


@lru_cache(maxsize=32_768)
def _place(name: str) -> int:
    return crc32(name.encode())


@lru_cache(maxsize=8192)
def _the_same(endpoint: PublisherEndpoint) -> PublisherEndpoint:
    """One object for all that are equal: choices are then compared in no time."""
    return endpoint
