"""One stream's journal: appends to it, reads it back, acknowledges, and removes what is acknowledged.

The format of its files and the rules about them are in relay/journal/__init__.py.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from contextlib import suppress
from operator import attrgetter
from pathlib import Path

from relay.errors import JournalError
from relay.journal.files import (
    Cursor,
    SegmentReader,
    claim_segments,
    create_segment,
    journal_errors,
    last_epoch,
    make_private,
    read_survey,
    remove_others,
    sync_path,
)
from relay.journal.recovery import recovery_of
from relay.journal.segments import Damage, Segment

SEGMENT_BYTES = 16 * 1024 * 1024
# A larger segment is replaced once it is all acknowledged.
ROLL_BYTES = 1024 * 1024
_first_offset = attrgetter("first_offset")


class Journal:
    """Nothing is lost by a JournalError: the journal then holds what it held before the call. Use from one
    thread."""

    # Every record up to this offset is acknowledged.
    acknowledged: int
    # Of the newest record, whether the journal still holds it or not.
    last_offset: int
    # What the segments take on the disk, including acknowledged parts that are not removed yet.
    used_bytes: int
    # In offset order; the last one is `_tail`.
    _segments: list[Segment]
    # The segment that is appended to, and its file descriptor, -1 once the journal is closed.
    _tail: Segment
    _fd: int

    def __init__(
        self,
        directory: Path,
        *,
        epoch: int,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        sync: bool = False,
    ) -> None:
        self.directory = directory
        self.epoch = epoch
        self.max_bytes = max_bytes
        self.damages: list[Damage] = []
        self._skipped_damage = False
        self._tail_failed = False
        self._segment_bytes = min(segment_bytes, max_bytes // 4)
        self._sync = sync
        self._reader: SegmentReader | None = None
        with journal_errors(directory, "opened"):
            self._recover()

    @staticmethod
    def next_epoch(directory: Path, now_ms: int) -> int:
        """`now_ms` (since 1970), or more: above every earlier epoch of this journal."""
        if not directory.exists():
            return now_ms
        with journal_errors(directory, "listed"):
            return max(now_ms, last_epoch(directory) + 1)

    @staticmethod
    def reserve_epochs_through(directory: Path, epoch: int) -> None:
        """Make every later incarnation choose an epoch above `epoch`, with or without a journal."""
        path = directory / f"{epoch:020}.floor"
        with journal_errors(path, "created"):
            make_private(directory)
            path.touch(mode=0o600)

    @property
    def room_bytes(self) -> int:
        return max(0, self.max_bytes - self.used_bytes)

    def append(self, encoded: bytes, last_offset: int) -> None:
        """Write one or many encoded batches with offsets up to `last_offset`, all of them or none."""
        assert last_offset > self.last_offset
        size = len(encoded)
        if size > self.max_bytes - self.used_bytes:
            raise JournalError(f"journal {self.directory} is full; raise journal.max_bytes")
        if self._tail_failed or self._tail.end + size > self._segment_bytes:
            self._roll_segment()
            self._tail_failed = False
        try:
            written = os.write(self._fd, encoded)
            if self._sync:
                os.fdatasync(self._fd)
        except OSError as error:
            self._truncate_failed_write()
            raise JournalError(f"journal {self.directory} refused a write: {error.strerror}") from error
        if written != size:
            self._truncate_failed_write()
            raise JournalError(f"journal {self.directory} took a part of a write; the disk may be full")
        tail = self._tail
        tail.bytes += size
        tail.extend(last_offset, tail.bytes)
        self.used_bytes += size
        self.last_offset = last_offset

    def read_after(self, offset: int, max_bytes: int) -> list[bytes]:
        """The next batches with unacknowledged records after `offset`, encoded: at least one if there is one.

        Damaged ones are left out and added to `damages`. Raises JournalError, also when a later incarnation
        has claimed the segments.
        """
        while reader := self._reader_after(max(offset, self.acknowledged)):
            batches, damage = reader.read(max_bytes, self.acknowledged)
            if damage is not None:
                self._skipped_damage = True
                self._note(damage)
            if batches:
                return batches
        return []

    def take_damage_flag(self) -> bool:
        """Whether damage lay between the batches of the last two calls of `read_after`; clears it."""
        is_damaged, self._skipped_damage = self._skipped_damage, False
        return is_damaged

    def acknowledge(self, offset: int) -> None:
        """Everything up to `offset` is stored in NATS. Survives a kill; removes segments."""
        offset = min(offset, self.last_offset)
        if offset <= self.acknowledged:
            return
        self.acknowledged = offset
        self._cursor.store(offset)
        # A disk that refuses this must not turn an acknowledgement into a failure: the next one tries again.
        with suppress(JournalError):
            if offset == self.last_offset and self._tail.bytes > ROLL_BYTES:
                self._roll_segment()
            while len(self._segments) > 1 and self._segments[0].last_offset <= offset:
                self._remove_oldest()

    def sync(self) -> None:
        """Write all that was appended and acknowledged to the disk; blocks until it is there."""
        with journal_errors(self.directory, "synced"):
            for segment in self._segments:
                with suppress(FileNotFoundError):
                    sync_path(self.directory / segment.name)
            self._cursor.sync()
            sync_path(self.directory)

    def close(self) -> None:
        """Close the files, which stay. Only another `close` may follow."""
        self._drop_reader()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._cursor.close()

    def _recover(self) -> None:
        make_private(self.directory)
        last = last_epoch(self.directory)
        if self.epoch <= last:
            raise JournalError(f"journal {self.directory} has seen epoch {last}; {self.epoch} is too low")
        claimed = claim_segments(self.directory, self.epoch)
        self.acknowledged = Cursor.read_highest(self.directory)
        surveys = [read_survey(self.directory, each, self.acknowledged, limit) for each, limit in claimed]
        self.recovery = recovery_of(surveys, self.acknowledged, last)
        self.last_offset = self.recovery.last_offset
        self._segments = [each.segment for each in surveys if each.records]
        self.used_bytes = sum(segment.bytes for segment in self._segments)
        cursor = f"{self.epoch:020}.cursor"
        self._cursor = Cursor(self.directory / cursor, self.acknowledged)
        # From here on, whatever a predecessor appends or creates is ignored.
        self._tail, self._fd = self._create_segment()
        remove_others(self.directory, self.epoch, {cursor, *(segment.name for segment in self._segments)})

    def _create_segment(self) -> tuple[Segment, int]:
        segment = Segment(self.epoch, self.last_offset + 1, self.epoch)
        fd = create_segment(self.directory / segment.name, sync=self._sync)
        self._segments.append(segment)
        return segment, fd

    def _roll_segment(self) -> None:
        """Start a new segment, unless the present one is empty."""
        if self._tail.last_offset >= self._tail.first_offset:
            old_fd = self._fd
            self._tail, self._fd = self._create_segment()
            os.close(old_fd)

    def _truncate_failed_write(self) -> None:
        """After a failed write. Only this file may be affected, so the next write goes into a new one."""
        tail = self._tail
        self._tail_failed = True
        with suppress(OSError):
            os.ftruncate(self._fd, tail.bytes)
        with suppress(OSError):
            # What could not be cut off stays in the file; reading skips it as damage.
            size = os.fstat(self._fd).st_size
            self.used_bytes += size - tail.bytes
            tail.bytes = size

    def _remove_oldest(self) -> None:
        path = self.directory / self._segments[0].name
        with journal_errors(path, "removed"):
            path.unlink(missing_ok=True)
        segment = self._segments.pop(0)
        self.used_bytes -= segment.bytes
        if self._reader is not None and self._reader.segment is segment:
            self._drop_reader()

    def _reader_after(self, after: int) -> SegmentReader | None:
        """A reader that continues behind offset `after`; None if there is nothing to read."""
        reader = self._reader
        if after >= self.last_offset:
            return None
        if reader is None or reader.after != after:
            index = max(0, bisect_right(self._segments, after + 1, key=_first_offset) - 1)
        elif reader.exhausted:
            index = bisect_right(self._segments, reader.segment.first_offset, key=_first_offset)
        else:
            return reader
        return self._open_reader(self._segments[index], after) if index < len(self._segments) else None

    def _open_reader(self, segment: Segment, after: int) -> SegmentReader:
        self._drop_reader()
        with journal_errors(self.directory / segment.name, "read"):
            self._reader = SegmentReader(self.directory, segment, after)
        return self._reader

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _note(self, damage: Damage) -> None:
        known = {(each.segment, each.at) for each in (*self.recovery.damages, *self.damages)}
        if (damage.segment, damage.at) not in known:
            self.damages.append(damage)
