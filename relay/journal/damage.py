"""Finds which events are lost by damage to the journal, from the intact ones around them; pure.

The events around the damage are known when the journal is read back, and the stored position when a publisher
answers: what is lost can be said only with both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relay.model.position import NOTHING_STORED, StoredPosition
from relay.model.record_batch import EVENT_KINDS, Head, RecordBatch, head, record_of


@dataclass(frozen=True, slots=True)
class JournalLoss:
    """The events between the one with id `before_id`, which was read at `before_ns`, and `after` are lost.
    `before_id` is NO_EVENT_ID where that event has no id. `after` is one event, alone in its batch; None
    where everything that was accepted since is lost."""

    before_id: int
    before_ns: int
    after: RecordBatch | None


class JournalLossTracker:
    """Follows what is read back from the journal. Use from one event loop."""

    def __init__(self) -> None:
        self._last: bytes | None = None
        self._is_damaged = False
        self._pending: list[tuple[bytes | None, bytes]] = []
        self._stored = NOTHING_STORED

    def follow(self, encoded: Sequence[bytes], *, damaged: bool) -> None:
        """The next batches, oldest first; `damaged` says that damage lay before them."""
        self._is_damaged |= damaged
        events = [one for one in encoded if head(one).kind in EVENT_KINDS]
        if self._is_damaged and events:
            self._pending.append((self._last, events[0]))
            self._is_damaged = False
        self._last = events[-1] if events else self._last

    def end(self) -> Iterator[JournalLoss]:
        """Nothing more can be read back, so damage behind the last event has no event after it."""
        if self._is_damaged:
            self._is_damaged = False
            yield JournalLoss(*self._before(self._last), None)

    def stored(self, position: StoredPosition) -> None:
        """The last event that NATS has stored, as far as it is known. Of a message that the relay did not
        write, its id alone may be known."""
        self._stored = max(self._stored, position, key=_order)

    def found(self) -> Iterator[JournalLoss]:
        """The losses since the last call, without what is stored. Call once the stored position is known."""
        pending, self._pending = self._pending, []
        for before, after in pending:
            loss = self._loss(before, after)
            if loss is not None:
                yield loss

    def _loss(self, before: bytes | None, after: bytes) -> JournalLoss | None:
        """None if what lay between is stored, or was only side records."""
        first = head(after)
        known = self._stored.epoch_seq
        if before is not None:
            known = max(known, _end(head(before)))
        if (first.epoch, first.seq) <= (known[0], known[1] + 1):
            return None
        return JournalLoss(*self._before(before), record_of(after, 0))

    def _before(self, last: bytes | None) -> tuple[int, int]:
        """`(id, recv_ns)` of the last event that is not lost."""
        if last is not None and _end(found := head(last)) > self._stored.epoch_seq:
            return record_of(last, found.records - 1).event_ids[0], found.recv_ns
        return self._stored.event_id, self._stored.recv_ns


def _end(batch: Head) -> tuple[int, int]:
    """Epoch and seq of its last event."""
    return batch.epoch, batch.seq + batch.records - 1


def _order(position: StoredPosition) -> tuple[int, int, int, int]:
    return position.epoch, position.seq, position.event_id, position.recv_ns
