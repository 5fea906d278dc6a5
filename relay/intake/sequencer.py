"""Accepted records get their numbers, are encoded in batches and are offered to the window; pure.

`seq` counts the events of an epoch from 1, `offset` counts all records of the stream over all epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.delivery.buffered_batch import (
    EVENTS,
    FULL_STATES,
    SIDE_RECORD,
    UNDROPPABLE_SIDE_RECORD,
    BatchFlags,
    BufferedBatch,
)
from relay.delivery.window import Admission, SendWindow
from relay.model.record_batch import FULL_BYTES, NO_EVENT_ID, RecordKind, encode


@dataclass(slots=True)
class _Run:
    """Events that are alike and were read together; their ids rise, where they have any."""

    kind: RecordKind
    recv_ns: int
    conflatable: bool
    event_ids: list[int]
    payloads: list[bytes]

    def continues(self, kind: RecordKind, recv_ns: int, event_id: int, conflatable: bool) -> bool:
        """Whether an event may be appended."""
        alike = (self.kind, self.recv_ns, self.conflatable) == (kind, recv_ns, conflatable)
        return alike and (event_id == NO_EVENT_ID or event_id > self.event_ids[-1])


class Sequencer:
    """`last_offset` is that of the last record that an earlier incarnation accepted."""

    def __init__(self, window: SendWindow, epoch: int, last_offset: int) -> None:
        self._window = window
        self._epoch = epoch
        self._offset = last_offset
        self._seq = 0
        self._run: _Run | None = None
        self._journal: list[bytes] = []

    def batch(
        self, recv_ns: int, conflatable: bool, event_ids: list[int], payloads: list[bytes]
    ) -> BufferedBatch:
        """Number and encode events without offering them; call only when `flush` left nothing behind."""
        offset, seq, count = self._offset + 1, self._seq + 1, len(payloads)
        self._offset += count
        self._seq += count
        encoded = encode(RecordKind.EVENT, offset, self._epoch, seq, recv_ns, event_ids, payloads)
        return BufferedBatch(offset, count, recv_ns, encoded, FULL_STATES if conflatable else EVENTS)

    def append_event(
        self, kind: RecordKind, recv_ns: int, event_id: int, payload: bytes, conflatable: bool
    ) -> None:
        run = self._run
        if run is None or not run.continues(kind, recv_ns, event_id, conflatable):
            self._end_run()
            self._run = run = _Run(kind, recv_ns, conflatable, [], [])
        run.event_ids.append(event_id)
        run.payloads.append(payload)

    def append_events(
        self, kind: RecordKind, recv_ns: int, conflatable: bool, event_ids: list[int], payloads: list[bytes]
    ) -> None:
        """Events that are alike and were read together, in batches that fit into the window as a whole."""
        at, count = 0, len(payloads)
        flags = FULL_STATES if conflatable else EVENTS
        while at < count:
            some, ids = payloads, event_ids
            if count > 1:
                some = _batched(payloads[at : at + self._window.max_batch_records])
                ids = event_ids[at : at + len(some)]
            self._offer(kind, recv_ns, self._seq + 1, ids, some, flags)
            self._seq += len(some)
            at += len(some)

    def append_side_record(
        self, kind: RecordKind, recv_ns: int, payload: bytes, event_id: int = NO_EVENT_ID
    ) -> None:
        """A record that is no event, after the events so far; its `seq` is that of the last event."""
        self._end_run()
        # Losses and repairs must reach the ledger, even when events are dropped. Rejected frames may be
        # dropped: a faulty peer could send any number of them.
        is_vital = kind is RecordKind.LOSS or kind is RecordKind.REPAIR
        flags = UNDROPPABLE_SIDE_RECORD if is_vital else SIDE_RECORD
        self._offer(kind, recv_ns, self._seq, [event_id], [payload], flags)

    def flush(self) -> tuple[bytes, int]:
        """What the journal must get in one piece since the last call, and the offset of the last record."""
        if self._run is not None:
            self._end_run()
        journal, self._journal = self._journal, []
        return journal[0] if len(journal) == 1 else b"".join(journal), self._offset

    def _end_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            self.append_events(run.kind, run.recv_ns, run.conflatable, run.event_ids, run.payloads)

    def _offer(
        self,
        kind: RecordKind,
        recv_ns: int,
        seq: int,
        event_ids: list[int],
        payloads: list[bytes],
        flags: BatchFlags,
    ) -> None:
        offset, count = self._offset + 1, len(payloads)
        self._offset += count
        encoded = encode(kind, offset, self._epoch, seq, recv_ns, event_ids, payloads)
        batch = BufferedBatch(offset, count, recv_ns, encoded, flags)
        if self._window.offer(batch) is not Admission.DROPPED:
            self._journal.append(encoded)


def _batched(payloads: list[bytes]) -> list[bytes]:
    """As many of the first payloads as one batch holds."""
    while len(payloads) > 1 and sum(map(len, payloads)) > FULL_BYTES:
        payloads = payloads[: len(payloads) // 2]
    return payloads
