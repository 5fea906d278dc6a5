"""A file for entries of a standby instance that do not fit into memory; it is removed with the process.

It is written only while NATS is so far behind that memory is full, and cleared as a whole afterwards. It does
file I/O but is not under relay.adapters, because it extends the replay buffer, which reads and writes it
within one decision.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from relay.errors import DamagedBatchError, JournalError
from relay.journal.files import journal_errors, make_private
from relay.model.record_batch import OVERHEAD_BYTES, RecordKind, decode, encode
from relay.standby.replay_buffer import Entry


class SpillFile:
    """Holds at most `max_bytes`. Every call may raise JournalError. Use from one thread."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.bytes = 0
        self._path = path
        self._max_bytes = max_bytes
        self._fd = -1
        with suppress(OSError):
            # A predecessor's entries end with its connection: there is a gap between them and this process's.
            path.unlink(missing_ok=True)

    def append(self, entries: list[Entry]) -> None:
        """All of them or none."""
        encoded = b"".join(
            [
                encode(RecordKind.EVENT, 0, 0, 0, entry.recv_ns, (entry.name,), (entry.payload,))
                for entry in entries
            ]
        )
        if self.bytes + len(encoded) > self._max_bytes:
            raise JournalError(f"{self._path} would be larger than journal.max_bytes")
        with journal_errors(self._path, "written"):
            if self._fd < 0:
                self._open()
            written = os.pwrite(self._fd, encoded, self.bytes)
        if written != len(encoded):
            raise JournalError(f"{self._path} accepted only part of a write; the disk may be full")
        self.bytes += written

    def _open(self) -> None:
        """A new file: a stopped predecessor may still write to the old file of this name."""
        make_private(self._path.parent)
        self._path.unlink(missing_ok=True)
        self._fd = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def read(self, at: int, max_bytes: int) -> tuple[list[Entry], int]:
        """The entries from byte `at` on, and the byte after them: at least one entry if there is one."""
        size = min(max_bytes, self.bytes - at)
        while size > 0:
            with journal_errors(self._path, "read"):
                data = os.pread(self._fd, size, at)
            entries, used = _entries(data)
            if used or size == self.bytes - at:
                return entries, at + (used or size)
            size = min(4 * size, self.bytes - at)
        return [], at

    def clear(self) -> None:
        self.bytes = 0
        if self._fd >= 0:
            with journal_errors(self._path, "cut"):
                os.ftruncate(self._fd, 0)

    def close(self) -> None:
        """Remove it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def _entries(data: bytes) -> tuple[list[Entry], int]:
    entries: list[Entry] = []
    at = 0
    while len(data) - at >= OVERHEAD_BYTES:
        try:
            one, at = decode(data, at, check=False)
        except DamagedBatchError:
            break
        entries.append(Entry(one.event_ids[0], one.payloads[0], one.recv_ns))
    return entries, at
