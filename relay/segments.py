"""What the files of a journal say: their names, their records and their damages. Pure: bytes in, values out.

A segment holds records of one epoch, its writer's, with rising offsets. A new incarnation takes the segments
of its predecessor over by renaming them and then starts one of its own, at an offset of its choice. Whatever
a stopped predecessor appends or creates when it wakes up is superseded: it lies above that offset, or in a
segment that nobody took over.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from relay.record import HEAD_BYTES, DamagedRecordError, record_end

NO_LIMIT = 1 << 64
# Looking for an offset reads this much at most: some 250 records, 0.3 ms.
MARK_BYTES = 64 * 1024
# The first four fields of a record, see relay/record.py.
_LEAD = Struct("<IIBQ")
_EPOCH = Struct("<Q")
_SEGMENT_NAME = re.compile(r"(\d{20})-(\d{20})-(\d{20})\.seg")
_ANY_NAME = re.compile(r"(\d{20})(-\d{20}-\d{20}\.seg|\.cursor|\.floor)")


@dataclass(slots=True)
class Segment:
    """One file, written by `epoch`. `end` is the byte after its last intact record, `bytes` its size on disk.

    `owner` is the epoch that wrote it or took it over. Of an empty segment `last_offset` is
    `first_offset - 1`. `marks` are some places at which a record begins, each with the offset of the record
    before it.
    """

    owner: int
    first_offset: int
    epoch: int
    last_offset: int = field(init=False)
    end: int = 0
    bytes: int = 0
    marks: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.last_offset = self.first_offset - 1
        self.marks = [(self.last_offset, 0)]

    @property
    def name(self) -> str:
        return f"{self.owner:020}-{self.first_offset:020}-{self.epoch:020}.seg"

    def extend(self, last_offset: int, end: int) -> None:
        self.last_offset = last_offset
        self.end = end
        if end - self.marks[-1][1] >= MARK_BYTES:
            self.marks.append((last_offset, end))

    def mark_before(self, offset: int) -> tuple[int, int]:
        """The last mark from which on every record above `offset` is found."""
        index = bisect_right(self.marks, offset, key=lambda mark: mark[0])
        return self.marks[max(0, index - 1)]


@dataclass(frozen=True, slots=True)
class Damage:
    """`lost_bytes` of `segment`, from byte `at` on, are no intact records.

    `records_lost` counts the offsets among them that were not acknowledged. It is None when the damage
    reaches the end of the newest segment: so looks an append that a kill cut short before it was accepted.
    """

    segment: str
    at: int
    reason: str
    lost_bytes: int
    records_lost: int | None


class Found(NamedTuple):
    """An intact record at bytes `start` to `end`."""

    start: int
    end: int
    kind: int
    offset: int


class Gap(NamedTuple):
    """Bytes without an intact record. `next_offset` is None when none follows."""

    start: int
    end: int
    reason: str
    next_offset: int | None


class Taken(NamedTuple):
    """Records cut out of a chunk, the bytes used up, the offset reached, and the gap that stopped it."""

    records: list[bytes]
    used: int
    reached: int
    gap: Gap | None


def segment_named(name: str) -> Segment | None:
    match = _SEGMENT_NAME.fullmatch(name)
    if match is None:
        return None
    return Segment(owner=int(match[1]), first_offset=int(match[2]), epoch=int(match[3]))


def epoch_named(name: str) -> int | None:
    """The epoch that owns any file of a journal; None for foreign files."""
    match = _ANY_NAME.fullmatch(name)
    return int(match[1]) if match else None


def in_force(segments: Iterable[Segment]) -> list[tuple[Segment, int]]:
    """Segments in offset order, each with the offset from which a later one rules; no superseded ones.

    An incarnation that was killed while it took over has written nothing yet: some segments are its own then
    and some still its predecessor's.
    """
    found = sorted(segments, key=lambda each: (each.epoch, each.first_offset), reverse=True)
    kept: list[tuple[Segment, int]] = []
    limit = NO_LIMIT
    for segment in found:
        if segment.owner >= found[0].epoch and segment.first_offset < limit:
            kept.append((segment, limit))
            limit = segment.first_offset
    return kept[::-1]


def scan(data: bytes, epoch: int, reached: int, limit: int) -> Iterator[Found | Gap]:
    """The intact records of `data` with offsets above `reached` and below `limit`, and the gaps between them.

    Ends at the record before `limit`, whatever follows it.
    """
    at = 0
    while at < len(data) and reached + 1 < limit:
        try:
            found = _intact(data, at, reached)
        except DamagedRecordError as error:
            gap = _gap(data, error, epoch, reached, limit)
            yield gap
            at = gap.end
            continue
        if found.offset >= limit:
            return
        yield found
        at, reached = found.end, found.offset


def _intact(data: bytes, at: int, reached: int) -> Found:
    end = record_end(data, at)
    _, crc, kind, offset = _LEAD.unpack_from(data, at)
    if crc32(data[at + HEAD_BYTES : end]) != crc:
        raise DamagedRecordError(at, "checksum differs")
    if offset <= reached:
        raise DamagedRecordError(at, "offset does not rise")
    return Found(at, end, kind, offset)


def _gap(data: bytes, damage: DamagedRecordError, epoch: int, reached: int, limit: int) -> Gap:
    found = _resync(data, damage.at + 1, epoch, reached, limit)
    if found is None:
        return Gap(damage.at, len(data), damage.reason, None)
    return Gap(damage.at, found.start, damage.reason, found.offset)


def _resync(data: bytes, at: int, epoch: int, reached: int, limit: int) -> Found | None:
    """The first intact record at or after byte `at`, found by the epoch that each record carries."""
    mark = _EPOCH.pack(epoch)
    place = data.find(mark, at + _LEAD.size)
    while place >= 0:
        try:
            found = _intact(data, place - _LEAD.size, reached)
        except DamagedRecordError:
            found = None
        if found is not None and found.offset < limit:
            return found
        place = data.find(mark, place + 1)
    return None


def damage_of(gap: Gap, segment: Segment, base: int, held: int, limit: int) -> Damage:
    """`base` is the byte of the segment where the scanned data began; records up to `held` are not lost."""
    following = gap.next_offset
    if following is None and limit != NO_LIMIT:
        following = limit
    records_lost = None if following is None else max(0, following - 1 - held)
    return Damage(segment.name, base + gap.start, gap.reason, gap.end - gap.start, records_lost)


def take(data: bytes, segment: Segment, reached: int, after: int, max_bytes: int) -> Taken:
    """Cut the records above `after` out of `data`, up to `max_bytes` but at least one; stop at a gap."""
    records: list[bytes] = []
    used = size = 0
    for item in scan(data, segment.epoch, reached, segment.last_offset + 1):
        if isinstance(item, Gap):
            return Taken(records, used, reached, item)
        start, end, _, offset = item
        if offset > after:
            size += end - start
            if records and size > max_bytes:
                break
            records.append(data[start:end])
        used, reached = end, offset
    return Taken(records, used, reached, None)
