"""What is held up behind a hole while REST is asked about it, and what the ledger says of the hole; pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from relay.binance.classifier import Classification
from relay.model.gap import FillRange, Gap

# Two seconds of the busiest streams come to less.
MAX_HELD_MESSAGES = 20_000
MAX_HELD_BYTES = 8 * 1024 * 1024


class HeldPayload(NamedTuple):
    """An event that is held, or the end of a connection, which has no verdict."""

    payload: bytes
    recv_ns: int
    verdict: Classification | None


class GapHold:
    """`hole` is None while it is not known yet which event is the last one stored before this incarnation.

    `settled` is what became of the first ids of the hole.
    """

    def __init__(self, gap: Gap | None) -> None:
        self.gap = gap
        self.waiting: deque[HeldPayload] = deque()
        self.settled: list[FillRange] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        return len(self.waiting) >= MAX_HELD_MESSAGES or self._bytes >= MAX_HELD_BYTES

    def hold(self, waiting: HeldPayload) -> None:
        self.waiting.append(waiting)
        self._bytes += len(waiting.payload)

    def disconnected(self) -> None:
        """The events that come next are from another connection."""
        if self.waiting:
            self.hold(HeldPayload(b"", self.waiting[-1].recv_ns, None))
