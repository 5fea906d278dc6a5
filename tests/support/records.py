"""Batches as their records, one by one, which is how most tests think of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from relay.model.record_batch import EVENT_KINDS, RecordBatch
from relay.model.record_batch import decode as decode_batch
from relay.model.record_batch import encode as encode_batch


@dataclass(slots=True)
class Record:
    kind: int
    offset: int
    epoch: int
    seq: int
    recv_ns: int
    event_id: int
    payload: bytes

    @property
    def batch(self) -> RecordBatch:
        """Alone in one."""
        return RecordBatch(
            self.kind, self.offset, self.epoch, self.seq, self.recv_ns, (self.event_id,), [self.payload]
        )

    @property
    def encoded(self) -> bytes:
        return self.batch.encoded


def encode(
    kind: int, offset: int, epoch: int, seq: int, recv_ns: int, event_id: int, payload: bytes
) -> bytes:
    """A record alone in its batch."""
    return encode_batch(kind, offset, epoch, seq, recv_ns, [event_id], [payload])


def decode(buffer: bytes, at: int, *, check: bool) -> tuple[Record, int]:
    """Of a record that is alone in its batch."""
    batch, end = decode_batch(buffer, at, check=check)
    (record,) = records_in(batch)
    return record, end


def records_in(batch: RecordBatch) -> Iterator[Record]:
    """Its records, numbered as the batch says."""
    for number, (event_id, payload) in enumerate(zip(batch.event_ids, batch.payloads, strict=True)):
        yield Record(
            batch.kind,
            batch.offset + number,
            batch.epoch,
            batch.seq + number,
            batch.recv_ns,
            event_id,
            payload,
        )


def read_records(journal: bytes) -> list[Record]:
    """All records of batches that stand end to end."""
    found: list[Record] = []
    at = 0
    while at < len(journal):
        batch, at = decode_batch(journal, at, check=True)
        found += records_in(batch)
    return found


def batched(records: Sequence[Record]) -> Iterator[RecordBatch]:
    """Records that were read together, in batches."""
    run: list[Record] = []
    for record in records:
        if run and not _goes_on(run[-1], record):
            yield _batch(run)
            run = []
        run.append(record)
    if run:
        yield _batch(run)


def _goes_on(last: Record, record: Record) -> bool:
    alike = all(getattr(last, name) == getattr(record, name) for name in ("kind", "epoch", "recv_ns"))
    next_one = (record.offset, record.seq) == (last.offset + 1, last.seq + 1)
    return alike and next_one and record.kind in EVENT_KINDS


def _batch(run: Sequence[Record]) -> RecordBatch:
    return replace(
        run[0].batch,
        event_ids=[record.event_id for record in run],
        payloads=[record.payload for record in run],
    )
