"""One record: what the journal keeps and what the link carries, the same bytes for both.

A record is encoded once, when it is accepted. Layout, little endian:
`length u32 | crc32 u32 | kind u8 | offset u64 | epoch u64 | seq u64 | recv_ns u64 | event_id i64 | payload`.
`length` counts everything after the crc; the crc covers the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from zlib import crc32

from relay.errors import SluiceError

_HEAD = Struct("<II")
_BODY = Struct("<BQQQQq")
_WHOLE = Struct("<IIBQQQQq")
HEAD_BYTES = _HEAD.size
OVERHEAD_BYTES = _HEAD.size + _BODY.size
# Binance's own SDK allows frames of 20 MB; the largest recorded frame has 35 kB.
MAX_RECORD_BYTES = 4 * 1024 * 1024
NO_EVENT_ID = -1


class Kind(IntEnum):
    """What a record is. Side records are all but EVENT and HEALED; they have subjects of their own.

    HEALED is an event in its place that REST gave, REPAIR one that REST gave after its place was taken.
    """

    EVENT = 0
    REJECTED = 1
    LOSS = 2
    HEALED = 3
    REPAIR = 4


EVENT_KINDS = frozenset({Kind.EVENT, Kind.HEALED})


class DamagedRecordError(SluiceError):
    """The bytes at `at` are not a whole, intact record."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(at, reason)
        self.at = at
        self.reason = reason

    def __str__(self) -> str:
        return f"record at byte {self.at} is damaged: {self.reason}"


@dataclass(slots=True)
class Record:
    """`offset` orders all records of one stream for ever; `seq` counts events of one `epoch`, from 1.

    `event_id` is the exchange's own id where it is unique and contiguous, else `NO_EVENT_ID`.
    A side record repeats the `seq` of the last event before it.
    """

    kind: int
    offset: int
    epoch: int
    seq: int
    recv_ns: int
    event_id: int
    payload: bytes


def encode(
    kind: int, offset: int, epoch: int, seq: int, recv_ns: int, event_id: int, payload: bytes
) -> bytes:
    body = _BODY.pack(kind, offset, epoch, seq, recv_ns, event_id) + payload
    return _HEAD.pack(len(body), crc32(body)) + body


def decode(buffer: bytes | memoryview, at: int, *, check: bool) -> tuple[Record, int]:
    """The record at byte `at` and the byte after it.

    Raises DamagedRecordError for a torn, oversized or (with `check`) altered record.
    """
    end = record_end(buffer, at)
    _, crc, kind, offset, epoch, seq, recv_ns, event_id = _WHOLE.unpack_from(buffer, at)
    if check and crc32(buffer[at + HEAD_BYTES : end]) != crc:
        raise DamagedRecordError(at, "checksum differs")
    return Record(kind, offset, epoch, seq, recv_ns, event_id, bytes(buffer[at + OVERHEAD_BYTES : end])), end


def record_end(buffer: bytes | memoryview, at: int) -> int:
    """The byte after the record at `at`; raises DamagedRecordError if it is torn or its length is absurd."""
    if len(buffer) - at < OVERHEAD_BYTES:
        raise DamagedRecordError(at, "torn")
    length: int = _HEAD.unpack_from(buffer, at)[0]
    if not _BODY.size <= length <= MAX_RECORD_BYTES:
        raise DamagedRecordError(at, "length is absurd")
    if len(buffer) - at - HEAD_BYTES < length:
        raise DamagedRecordError(at, "torn")
    return at + HEAD_BYTES + length
