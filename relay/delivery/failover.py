"""Chooses the publisher of a stream: the assigned one, or another one while that one fails; pure."""

from __future__ import annotations

from zlib import crc32

from relay.model.assignment import Assignment, PublisherEndpoint

# Ray restarts a killed publisher in about 2 s. A silent one may stay stopped, and each attempt to use it
# costs its streams the link's silence limit (1.6 s), so it is avoided for longer.
AVOID_S = 1.0
AVOID_SILENT_S = 8.0
AVOID_MAX_S = 30.0


class Failover:
    """`now` is monotonic seconds. Streams that lose their publisher spread over the others.

    Each failure in a row doubles the time for which a publisher is avoided. If all are avoided, the one whose
    time ends first is chosen at once.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._avoid_until: dict[str, float] = {}
        self._avoid_s: dict[str, float] = {}

    def failed(self, publisher: str, now: float, *, silent: bool = False) -> None:
        first_s = AVOID_SILENT_S if silent else AVOID_S
        avoid_s = max(first_s, min(AVOID_MAX_S, 2 * self._avoid_s.get(publisher, 0.0)))
        self._avoid_s[publisher] = avoid_s
        self._avoid_until[publisher] = now + avoid_s

    def worked(self, publisher: str) -> None:
        self._avoid_s.pop(publisher, None)
        self._avoid_until.pop(publisher, None)

    def choose(self, assignment: Assignment | None, now: float) -> PublisherEndpoint | None:
        """None while no publisher is known."""
        if assignment is None or not assignment.endpoints:
            return None
        order = sorted(assignment.endpoints, key=lambda endpoint: self._rank(endpoint, assignment))
        for endpoint in order:
            if now >= self._avoid_until.get(endpoint.publisher, now):
                return endpoint
        return min(order, key=lambda endpoint: self._avoid_until[endpoint.publisher])

    def _rank(self, endpoint: PublisherEndpoint, assignment: Assignment) -> tuple[bool, int]:
        spread = crc32(f"{self._stream} {endpoint.publisher}".encode())
        return endpoint.publisher != assignment.publisher, spread
