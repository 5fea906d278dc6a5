"""Which publisher a stream talks to: the assigned one, or another one for as long as that one fails."""

from __future__ import annotations

from zlib import crc32

from relay.stats import Assignment, PublisherEndpoint

# A publisher that failed is tried again after this long; Ray brings a killed one back in about 2 s.
AVOID_S = 1.0


class Failover:
    """Pure: `now` is monotonic seconds. Streams that lose one publisher spread over the others."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._failed_at: dict[str, float] = {}

    def failed(self, publisher: str, now: float) -> None:
        self._failed_at[publisher] = now

    def worked(self, publisher: str) -> None:
        self._failed_at.pop(publisher, None)

    def choose(self, assignment: Assignment | None, now: float) -> PublisherEndpoint | None:
        """None when there is nobody to try yet. With every publisher failing, the longest untried one."""
        if assignment is None or not assignment.endpoints:
            return None
        order = sorted(assignment.endpoints, key=lambda endpoint: self._rank(endpoint, assignment))
        for endpoint in order:
            if now - self._failed_at.get(endpoint.publisher, -AVOID_S) >= AVOID_S:
                return endpoint
        return min(order, key=lambda endpoint: self._failed_at[endpoint.publisher])

    def _rank(self, endpoint: PublisherEndpoint, assignment: Assignment) -> tuple[bool, int]:
        spread = crc32(f"{self._stream} {endpoint.publisher}".encode())
        return endpoint.publisher != assignment.publisher, spread
