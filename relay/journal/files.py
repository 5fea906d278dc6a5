"""The file operations below a journal: its folder, its cursor, and the reader of one segment."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from mmap import mmap
from pathlib import Path
from struct import Struct
from zlib import crc32

from relay.errors import JournalError
from relay.journal.recovery import Survey, survey
from relay.journal.segments import (
    Damage,
    Segment,
    SegmentChunk,
    current_segments,
    damage_of,
    epoch_named,
    read_batches,
    segment_named,
)

CHUNK_BYTES = 64 * 1024
# The acknowledged offset and its checksum; the file holds this twice.
_COPY = Struct("<QI")


@contextmanager
def journal_errors(path: Path, action: str) -> Iterator[None]:
    """Turn the system's errors into JournalError; `action` completes "cannot be"."""
    try:
        yield
    except OSError as error:
        raise JournalError(f"journal {path} cannot be {action}: {error.strerror}; check the disk") from error


def make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        directory.chmod(0o700)


def last_epoch(directory: Path) -> int:
    epochs = (epoch_named(path.name) for path in directory.iterdir())
    return max((epoch for epoch in epochs if epoch is not None), default=0)


def create_segment(path: Path, *, sync: bool) -> int:
    with journal_errors(path, "created"):
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if sync:
            sync_path(path.parent)
    return fd


def sync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def claim_segments(directory: Path, epoch: int) -> list[tuple[Segment, int]]:
    """Make the segments in force ours by renaming them: a running predecessor can remove none of them.

    Each comes with the offset from which a later one counts instead.
    """
    named = (segment_named(path.name) for path in directory.iterdir())
    claimed = []
    for segment, limit in current_segments(segment for segment in named if segment is not None):
        path = directory / segment.name
        segment.owner = epoch
        # If it no longer exists, its predecessor has removed it, so it was acknowledged.
        with suppress(FileNotFoundError):
            path.rename(directory / segment.name)
            claimed.append((segment, limit))
    return claimed


def read_survey(directory: Path, segment: Segment, acknowledged: int, limit: int) -> Survey:
    return survey(segment, (directory / segment.name).read_bytes(), acknowledged, limit)


def remove_others(directory: Path, epoch: int, kept: set[str]) -> None:
    """Remove all files of epochs up to `epoch`, except those named in `kept`."""
    for path in directory.iterdir():
        owner = epoch_named(path.name)
        if owner is not None and owner <= epoch and path.name not in kept:
            path.unlink(missing_ok=True)


class Cursor:
    """One rising number in a mapped file: a store costs no system call and survives a kill.

    With no intact copy it is 0, since delivering again is harmless and skipping records is not.
    """

    def __init__(self, path: Path, value: int) -> None:
        # Written before it is mapped: on a full disk a store into a page without a block would be a SIGBUS.
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, _twice(value)) < 2 * _COPY.size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._map = mmap(fd, 2 * _COPY.size)
        finally:
            os.close(fd)

    @staticmethod
    def read_highest(directory: Path) -> int:
        """The acknowledged offset by all cursor files; a kill may have left several, and one half written."""
        found = (path.read_bytes() for path in directory.glob("*.cursor"))
        return max(map(_intact_value, found), default=0)

    def store(self, value: int) -> None:
        self._map[:] = _twice(value)

    def sync(self) -> None:
        self._map.flush()

    def close(self) -> None:
        self._map.close()


def _twice(value: int) -> bytes:
    return 2 * _COPY.pack(value, _checksum(value))


def _checksum(value: int) -> int:
    return crc32(value.to_bytes(8, "little"))


def _intact_value(data: bytes) -> int:
    if len(data) != 2 * _COPY.size:
        return 0
    return min((value for value, crc in _COPY.iter_unpack(data) if crc == _checksum(value)), default=0)


class SegmentReader:
    """Reads one segment forward from behind offset `after`, which advances with the batches returned.

    The constructor raises FileNotFoundError if the segment no longer exists.
    """

    def __init__(self, directory: Path, segment: Segment, after: int) -> None:
        self.segment = segment
        self.after = after
        self._path = directory / segment.name
        self._reached, self._at = segment.mark_before(after)
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def exhausted(self) -> bool:
        return self._at >= self.segment.end or self._reached >= self.segment.last_offset

    def read(self, max_bytes: int, acknowledged: int) -> tuple[list[bytes], Damage | None]:
        """The next batches, or the damage that was skipped; neither if it only came nearer to `after`."""
        chunk = self._read_chunk(max(max_bytes, CHUNK_BYTES), max_bytes)
        if not chunk.used:
            # A batch may be longer than the chunk: read all that is left before calling it damage.
            chunk = self._read_chunk(self.segment.end, max_bytes)
        if not chunk.used:
            return [], self._skip_damage(chunk, acknowledged)
        self._at += chunk.used
        self._reached = chunk.reached
        if chunk.batches:
            self.after = chunk.reached
        return chunk.batches, None

    def _read_chunk(self, chunk_bytes: int, max_bytes: int) -> SegmentChunk:
        size = min(chunk_bytes, self.segment.end - self._at)
        with journal_errors(self._path, "read"):
            data = os.pread(self._fd, size, self._at)
        # Missing bytes at the end count as damage, as zeros do.
        return read_batches(data.ljust(size, b"\0"), self.segment, self._reached, self.after, max_bytes)

    def _skip_damage(self, chunk: SegmentChunk, acknowledged: int) -> Damage | None:
        if chunk.damage is None:
            self._at = self.segment.end
            return None
        held = max(self._reached, acknowledged)
        damage = damage_of(chunk.damage, self.segment, self._at, held, self.segment.last_offset + 1)
        self._at += chunk.damage.end
        return damage

    def close(self) -> None:
        os.close(self._fd)
