"""Names of journal files, and the batches and the damage in the bytes of a segment; pure.

The format is described in relay/journal/__init__.py.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

from relay.errors import DamagedBatchError
from relay.model.record_batch import EPOCH_AT, batch_end, has_valid_checksum, head

NO_LIMIT = 1 << 64
# The distance of marks in a segment: a search for an offset reads at most this much.
MARK_BYTES = 64 * 1024
_EPOCH = Struct("<Q")
_SEGMENT_NAME = re.compile(r"(\d{20})-(\d{20})-(\d{20})\.seg")
_ANY_NAME = re.compile(r"(\d{20})(-\d{20}-\d{20}\.seg|\.cursor|\.floor)")


@dataclass(slots=True)
class Segment:
    """One file, written by `epoch`. `end` is the byte after its last intact batch, `bytes` its size on disk.

    `owner` is the epoch that wrote it or claimed it. Of an empty segment `last_offset` is `first_offset - 1`.
    `marks` are `(offset, at)` pairs: a batch begins at byte `at`, behind the record with that offset.
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
    """`lost_bytes` of `segment`, from byte `at` on, are no intact batches.

    `records_lost` counts the offsets among them that were not acknowledged. It is None when the damage
    reaches the end of the newest segment, as after an append that a kill cut short.
    """

    segment: str
    at: int
    reason: str
    lost_bytes: int
    records_lost: int | None


class Found(NamedTuple):
    """An intact batch at bytes `start` to `end`, with the records from offset `first` to `last`."""

    start: int
    end: int
    kind: int
    first: int
    last: int


class DamagedRange(NamedTuple):
    """Bytes without an intact batch. `next_offset` is None when none follows."""

    start: int
    end: int
    reason: str
    next_offset: int | None


class SegmentChunk(NamedTuple):
    """The encoded batches of a chunk, how many of its bytes were used, the last offset in them, and the
    damage that ended it."""

    batches: list[bytes]
    used: int
    reached: int
    damage: DamagedRange | None


def segment_named(name: str) -> Segment | None:
    match = _SEGMENT_NAME.fullmatch(name)
    if match is None:
        return None
    return Segment(owner=int(match[1]), first_offset=int(match[2]), epoch=int(match[3]))


def epoch_named(name: str) -> int | None:
    """The epoch that owns any file of a journal; None for foreign files."""
    match = _ANY_NAME.fullmatch(name)
    return int(match[1]) if match else None


def current_segments(segments: Iterable[Segment]) -> list[tuple[Segment, int]]:
    """The segments in force, in offset order, each with the offset from which a later one counts instead.

    An incarnation that was killed during its claim has written nothing yet: then some segments are its own
    and some are still its predecessor's.
    """
    found = sorted(segments, key=lambda each: (each.epoch, each.first_offset), reverse=True)
    kept: list[tuple[Segment, int]] = []
    limit = NO_LIMIT
    for segment in found:
        if segment.owner >= found[0].epoch and segment.first_offset < limit:
            kept.append((segment, limit))
            limit = segment.first_offset
    return kept[::-1]


def scan(data: bytes, epoch: int, reached: int, limit: int) -> Iterator[Found | DamagedRange]:
    """The intact batches of `data` with offsets above `reached` and below `limit`, and the damage between.

    Ends at the batch before `limit`, whatever follows it.
    """
    at = 0
    while at < len(data) and reached + 1 < limit:
        try:
            found = _intact(data, at, reached)
        except DamagedBatchError as error:
            damage = _damaged_range(data, error, epoch, reached, limit)
            yield damage
            at = damage.end
            continue
        if found.first >= limit:
            return
        yield found
        at, reached = found.end, found.last


def _intact(data: bytes, at: int, reached: int) -> Found:
    end = batch_end(data, at)
    if not has_valid_checksum(data, at):
        raise DamagedBatchError(at, "checksum differs")
    kind, count, first, *_ = head(data, at)
    if first <= reached:
        raise DamagedBatchError(at, "offset does not rise")
    return Found(at, end, kind, first, first + count - 1)


def _damaged_range(
    data: bytes, damage: DamagedBatchError, epoch: int, reached: int, limit: int
) -> DamagedRange:
    found = _resync(data, damage.at + 1, epoch, reached, limit)
    if found is None:
        return DamagedRange(damage.at, len(data), damage.reason, None)
    return DamagedRange(damage.at, found.start, damage.reason, found.first)


def _resync(data: bytes, at: int, epoch: int, reached: int, limit: int) -> Found | None:
    """The first intact batch at or after byte `at`, found by the epoch that each batch carries."""
    mark = _EPOCH.pack(epoch)
    found_at = data.find(mark, at + EPOCH_AT)
    while found_at >= 0:
        try:
            found = _intact(data, found_at - EPOCH_AT, reached)
        except DamagedBatchError:
            found = None
        if found is not None and found.first < limit:
            return found
        found_at = data.find(mark, found_at + 1)
    return None


def damage_of(damage: DamagedRange, segment: Segment, base: int, held: int, limit: int) -> Damage:
    """`base` is the byte of the segment where the scanned data began; records up to `held` are not lost."""
    following = damage.next_offset
    if following is None and limit != NO_LIMIT:
        following = limit
    records_lost = None if following is None else max(0, following - 1 - held)
    return Damage(segment.name, base + damage.start, damage.reason, damage.end - damage.start, records_lost)


def read_batches(data: bytes, segment: Segment, reached: int, after: int, max_bytes: int) -> SegmentChunk:
    """Cut out the batches that go beyond `after`, up to `max_bytes` but at least one; stop at damage."""
    batches: list[bytes] = []
    used = size = 0
    for item in scan(data, segment.epoch, reached, segment.last_offset + 1):
        if isinstance(item, DamagedRange):
            return SegmentChunk(batches, used, reached, item)
        start, end, _, _, last = item
        if last > after:
            size += end - start
            if batches and size > max_bytes:
                break
            batches.append(data[start:end])
        used, reached = end, last
    return SegmentChunk(batches, used, reached, None)
