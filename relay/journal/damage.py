"""Which events damage took out of a journal, told by their neighbours; pure.

The neighbours are known when the journal is read back, and what NATS has stored already is known when the
publisher answers: only both together say what is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relay.model.position import NOTHING_STORED, StoredPosition
from relay.model.record_batch import EVENT_KINDS, Head, RecordBatch, head, record_of


@dataclass(frozen=True, slots=True)
class JournalLoss:
    """Events behind `before_id`, which was read at `before_ns`, and before `after` are lost. NO_EVENT_ID is
    where there is no id; `after` is one record, None where everything that was accepted since is lost."""

    before_id: int
    before_ns: int
    after: RecordBatch | None


class JournalLossTracker:
    """Follows what is read back; use from one event loop."""

    def __init__(self) -> None:
        self._last: bytes | None = None
        self._is_damaged = False
        self._pending: list[tuple[bytes | None, bytes]] = []
        self._stored = NOTHING_STORED

    def follow(self, encoded: Sequence[bytes], *, torn: bool) -> None:
        """The next batches, oldest first; `torn` says that damage lay before them."""
        self._is_damaged |= torn
        events = [one for one in encoded if head(one).kind in EVENT_KINDS]
        if self._is_damaged and events:
            self._pending.append((self._last, events[0]))
            self._is_damaged = False
        self._last = events[-1] if events else self._last

    def end(self) -> Iterator[JournalLoss]:
        """Nothing more can be read back: what damage took behind the last event has no successor."""
        if self._is_damaged:
            self._is_damaged = False
            yield JournalLoss(*self._before(self._last), None)

    def stored(self, position: StoredPosition) -> None:
        """The last event that NATS has stored, as far as it is known."""
        if position.epoch_seq > self._stored.epoch_seq:
            self._stored = position

    def found(self) -> Iterator[JournalLoss]:
        """Those since the last call, without what is stored. Call when it is known what is."""
        pending, self._pending = self._pending, []
        for before, after in pending:
            tear = self._loss(before, after)
            if tear is not None:
                yield tear

    def _loss(self, before: bytes | None, after: bytes) -> JournalLoss | None:
        """None if what lay between is stored, or was side records alone."""
        first = head(after)
        known = self._stored.epoch_seq
        if before is not None:
            known = max(known, _end(head(before)))
        if (first.epoch, first.seq) <= (known[0], known[1] + 1):
            return None
        return JournalLoss(*self._before(before), record_of(after, 0))

    def _before(self, last: bytes | None) -> tuple[int, int]:
        """Id and time of the last event that is not lost."""
        if last is not None and _end(found := head(last)) > self._stored.epoch_seq:
            return record_of(last, found.records - 1).event_ids[0], found.recv_ns
        return self._stored.event_id, self._stored.recv_ns


def _end(batch: Head) -> tuple[int, int]:
    """Epoch and count of its last event."""
    return batch.epoch, batch.seq + batch.records - 1
