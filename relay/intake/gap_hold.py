"""The events that are held behind a gap while REST is asked about it; pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from relay.binance.classifier import Classification
from relay.model.gap import FillRange, Gap

# The busiest streams have fewer events in the two seconds for which a gap holds them up.
MAX_HELD_MESSAGES = 20_000
MAX_HELD_BYTES = 8 * 1024 * 1024


class HeldPayload(NamedTuple):
    """An event that is held; without a classification, the end of a connection."""

    payload: bytes
    recv_ns: int
    classification: Classification | None


class GapHold:
    """`gap` is None while it is not known yet which event is the last one stored before this incarnation.

    `filled` is what REST has answered so far, from the first id of the gap on.
    """

    def __init__(self, gap: Gap | None, max_messages: int = MAX_HELD_MESSAGES) -> None:
        self.gap = gap
        self.payloads: deque[HeldPayload] = deque()
        self.filled: list[FillRange] = []
        self._max_messages = max_messages
        self._bytes = 0

    @property
    def full(self) -> bool:
        return len(self.payloads) >= self._max_messages or self._bytes >= MAX_HELD_BYTES

    def hold(self, payload: HeldPayload) -> None:
        self.payloads.append(payload)
        self._bytes += len(payload.payload)

    def disconnected(self) -> None:
        """The events that come next are from another connection."""
        if self.payloads:
            self.hold(HeldPayload(b"", self.payloads[-1].recv_ns, None))
