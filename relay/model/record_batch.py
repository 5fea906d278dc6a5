"""One batch: records of one kind that were accepted together, as the same bytes in journal and link.

A batch is encoded once, when its records are accepted, and then costs one checksum, one write and one message
(ADR 10). Layout, little endian (relay/journal/__init__.py has it with offsets):
`length u32 | crc32 u32 | kind u8 | records u32 | offset u64 | epoch u64 | seq u64 | recv_ns u64`, then
`event_id i64` of each record, `size u32` of each and the payloads. `length` counts everything after the crc;
the crc covers the same bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from relay.errors import DamagedBatchError

_PREFIX = Struct("<II")
_HEAD = Struct("<BIQQQQ")
_WHOLE = Struct("<IIBIQQQQ")
# Most batches of a slow stream hold one record: the same layout, packed in a third of the time.
_HEAD_OF_ONE = Struct("<BIQQQQqI")
_ONE = Struct("<qI")
_EVENT_ID, _SIZE = "q", "I"
_PER_RECORD_BYTES = 12
PREFIX_BYTES = _PREFIX.size
OVERHEAD_BYTES = _WHOLE.size + _PER_RECORD_BYTES
# The position of the epoch in a batch.
EPOCH_AT = _PREFIX.size + 13
# Enough to make the cost of a batch small for each record, few enough to be a small part of a credit (1024).
MAX_RECORDS = 128
# A batch is closed once its payloads have this size, so a larger batch holds one record.
FULL_BYTES = 64 * 1024
# Binance's own SDK allows frames of 20 MB; the largest recorded frame has 35 kB.
MAX_BATCH_BYTES = 4 * 1024 * 1024
NO_EVENT_ID = -1


class RecordKind(IntEnum):
    """What a record is. Side records are all but EVENT and HEALED; they have subjects of their own.

    HEALED is an event in its place that REST gave, REPAIR one that REST gave after its place was taken.
    """

    EVENT = 0
    REJECTED = 1
    LOSS = 2
    HEALED = 3
    REPAIR = 4


EVENT_KINDS = frozenset({RecordKind.EVENT, RecordKind.HEALED})


class Head(NamedTuple):
    """The fields of a batch before its records; see RecordBatch."""

    kind: int
    records: int
    offset: int
    epoch: int
    seq: int
    recv_ns: int


@dataclass(slots=True)
class RecordBatch:
    """`offset` and `seq` are those of the first record, and each further one has the next.

    `offset` orders all records of one stream across all epochs; `seq` counts events of one `epoch`, from 1.
    `recv_ns` is when they were read. `event_ids` are the exchange's own and rise, where these are unique,
    else they are `NO_EVENT_ID`. A side record is alone in its batch and repeats the `seq` of the last event
    before it.
    """

    kind: int
    offset: int
    epoch: int
    seq: int
    recv_ns: int
    event_ids: Sequence[int]
    payloads: list[bytes]

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def size_bytes(self) -> int:
        """Of the payloads."""
        return sum(map(len, self.payloads))

    @property
    def encoded(self) -> bytes:
        return encode(
            self.kind, self.offset, self.epoch, self.seq, self.recv_ns, self.event_ids, self.payloads
        )


def encode(
    kind: int,
    offset: int,
    epoch: int,
    seq: int,
    recv_ns: int,
    event_ids: Sequence[int],
    payloads: Sequence[bytes],
) -> bytes:
    if len(payloads) == 1:
        size = len(payloads[0])
        body = _HEAD_OF_ONE.pack(kind, 1, offset, epoch, seq, recv_ns, event_ids[0], size) + payloads[0]
        return _PREFIX.pack(len(body), crc32(body)) + body
    body = b"".join(
        (
            _HEAD.pack(kind, len(payloads), offset, epoch, seq, recv_ns),
            array(_EVENT_ID, event_ids),
            array(_SIZE, map(len, payloads)),
            *payloads,
        )
    )
    return _PREFIX.pack(len(body), crc32(body)) + body


def decode(buffer: bytes, at: int, *, check: bool) -> tuple[RecordBatch, int]:
    """The batch at byte `at` and the byte after it.

    Raises DamagedBatchError for a cut, oversized, malformed or (with `check`) altered one.
    """
    end = batch_end(buffer, at)
    _, crc, kind, count, offset, epoch, seq, recv_ns = _WHOLE.unpack_from(buffer, at)
    if check and crc32(memoryview(buffer)[at + PREFIX_BYTES : end]) != crc:
        raise DamagedBatchError(at, "checksum differs")
    ids_at = at + _WHOLE.size
    if count == 1:
        event_id, size = _ONE.unpack_from(buffer, ids_at)
        if ids_at + _ONE.size + size != end:
            raise DamagedBatchError(at, "records have another length")
        return RecordBatch(kind, offset, epoch, seq, recv_ns, (event_id,), [buffer[end - size : end]]), end
    sizes_at = ids_at + 8 * count
    start = sizes_at + 4 * count
    if not count or start > end:
        raise DamagedBatchError(at, "number of records is absurd")
    sizes = array(_SIZE, buffer[sizes_at:start])
    payloads = []
    for size in sizes:
        payloads.append(buffer[start : start + size])
        start += size
    if start != end:
        raise DamagedBatchError(at, "records have another length")
    return RecordBatch(
        kind, offset, epoch, seq, recv_ns, array(_EVENT_ID, buffer[ids_at:sizes_at]), payloads
    ), end


def head(buffer: bytes, at: int = 0) -> Head:
    """Of a batch that is known to be intact."""
    return Head._make(_HEAD.unpack_from(buffer, at + PREFIX_BYTES))


def batch_end(buffer: bytes, at: int) -> int:
    """The byte after the batch at `at`; raises DamagedBatchError if it is cut off or too long."""
    if len(buffer) - at < OVERHEAD_BYTES:
        raise DamagedBatchError(at, "torn")
    length: int = _PREFIX.unpack_from(buffer, at)[0]
    if not OVERHEAD_BYTES - PREFIX_BYTES <= length <= MAX_BATCH_BYTES:
        raise DamagedBatchError(at, "length is absurd")
    if len(buffer) - at - PREFIX_BYTES < length:
        raise DamagedBatchError(at, "torn")
    return at + PREFIX_BYTES + length


def has_valid_checksum(buffer: bytes, at: int) -> bool:
    """Whether the checksum of the batch at `at`, which has its full length, is right."""
    end = batch_end(buffer, at)
    return bool(crc32(memoryview(buffer)[at + PREFIX_BYTES : end]) == _PREFIX.unpack_from(buffer, at)[1])


def slice_records(encoded: bytes, first: int, stop: int) -> bytes:
    """The records of a batch from number `first` up to but without `stop`, as a batch of their own."""
    batch, _ = decode(encoded, 0, check=False)
    return encode(
        batch.kind,
        batch.offset + first,
        batch.epoch,
        batch.seq + first,
        batch.recv_ns,
        batch.event_ids[first:stop],
        batch.payloads[first:stop],
    )


def record_of(encoded: bytes, number: int) -> RecordBatch:
    """One record of a batch, alone."""
    return decode(slice_records(encoded, number, number + 1), 0, check=False)[0]
