"""What is held up behind a hole while REST is asked about it, and what the ledger says of the hole; pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from relay.frames import Verdict
from relay.heal import Fate, Hole, Piece
from relay.ledger import LossEntry
from relay.ranges import Range
from relay.streams import StreamKind, StreamSpec, Venue

# Each id is one event: the size of a hole is a count of events. Depth updates number price levels instead.
_COUNTABLE = frozenset({StreamKind.TRADE, StreamKind.AGG_TRADE})
# Where one incarnation wrote the beginning down and another one the end.
SET_BACK = "the clock was set back meanwhile, so these times are rough"

# Two seconds of the busiest streams come to less.
MAX_HELD_MESSAGES = 20_000
MAX_HELD_BYTES = 8 * 1024 * 1024


class Waiting(NamedTuple):
    """An event that is held, or the end of a connection, which has no verdict."""

    payload: bytes
    recv_ns: int
    verdict: Verdict | None


class Gap:
    """`hole` is None while it is not known yet which event is the last one stored before this incarnation.

    `settled` is what became of the first ids of the hole.
    """

    def __init__(self, hole: Hole | None) -> None:
        self.hole = hole
        self.waiting: deque[Waiting] = deque()
        self.settled: list[Piece] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        return len(self.waiting) >= MAX_HELD_MESSAGES or self._bytes >= MAX_HELD_BYTES

    def hold(self, waiting: Waiting) -> None:
        self.waiting.append(waiting)
        self._bytes += len(waiting.payload)

    def disconnected(self) -> None:
        """The events that come next are from another connection."""
        if self.waiting:
            self.hold(Waiting(b"", self.waiting[-1].recv_ns, None))


def settled_entry(stream: str, hole: Hole, piece: Piece, subject: str) -> LossEntry:
    """Of ids that REST told about; the events, if there are any, are on `subject`."""
    absent = piece.fate is Fate.ABSENT
    return LossEntry(
        stream=stream,
        first_id=piece.first_id,
        last_id=piece.last_id,
        count=len(piece.payloads),
        cause=hole.cause,
        from_ns=min(hole.from_ns, hole.to_ns),
        to_ns=max(hole.from_ns, hole.to_ns),
        healed=True,
        subject=None if absent else subject,
        reason="REST lists the events around these ids and none with them" if absent else "",
    )


def lost_entry(
    spec: StreamSpec, ids: Range | None, cause: str, from_ns: int, to_ns: int, reason: str
) -> LossEntry:
    """Of what nobody has; `ids` is None where the stream has none."""
    first_id, last_id = ids if ids else (None, None)
    count = ids[1] - ids[0] + 1 if ids and spec.kind in _COUNTABLE else None
    return LossEntry(
        stream=spec.key,
        first_id=first_id,
        last_id=last_id,
        count=count,
        cause=cause,
        from_ns=min(from_ns, to_ns),
        to_ns=max(from_ns, to_ns),
        suspect=count is not None and spec.venue is not Venue.SPOT,
        reason=f"{reason}; {SET_BACK}" if to_ns < from_ns else reason,
    )
