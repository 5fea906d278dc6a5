"""Writes what a stream accepts to its journal, and keeps it in memory while the disk refuses to."""

from __future__ import annotations

import logging
from collections.abc import Callable

from relay.errors import JournalError
from relay.journal.journal import Journal

_log = logging.getLogger(__name__)

# Reading stops while the journal has less room than one read and its records can take.
JOURNAL_RESERVE_BYTES = 4 * 1024 * 1024


class JournalWriter:
    """`stream` is the key of the stream, for messages. `on_stalled` is called with True when a write has
    failed, and with False once all that waited is written. Use from one event loop."""

    def __init__(self, journal: Journal, stream: str, on_stalled: Callable[[bool], None]) -> None:
        self.error = ""
        self._journal = journal
        self._stream = stream
        self._on_stalled = on_stalled
        self._limit_bytes = journal.max_bytes - JOURNAL_RESERVE_BYTES
        # Reading pauses at the first failed write, so this is what a single read has brought.
        self._unwritten = bytearray()
        self._unwritten_offset = 0

    @property
    def has_unwritten(self) -> bool:
        return bool(self._unwritten)

    @property
    def is_short_of_room(self) -> bool:
        return self._journal.used_bytes > self._limit_bytes

    @property
    def used_bytes(self) -> int:
        return self._journal.used_bytes

    @property
    def max_bytes(self) -> int:
        return self._journal.max_bytes

    @property
    def problem(self) -> str:
        """What an operator has to repair, as a sentence; empty while there is nothing."""
        if self.error:
            return f"{self.error}; {self._stream} reads nothing until it can be written"
        if self.is_short_of_room:
            return f"the journal of {self._stream} is full; it reads nothing until NATS takes events"
        return ""

    def write(self, encoded: bytes, last_offset: int) -> None:
        """Batches as `Journal.append` takes them; never raises JournalError."""
        if self._unwritten:
            self._keep(encoded, last_offset)
            return
        try:
            self._journal.append(encoded, last_offset)
        except JournalError as error:
            self.error = str(error)
            _log.error("%s; reading pauses until the journal takes records again", error)
            self._keep(encoded, last_offset)
            self._on_stalled(True)

    def _keep(self, encoded: bytes, last_offset: int) -> None:
        self._unwritten += encoded
        self._unwritten_offset = last_offset

    def retry(self) -> None:
        if not self._unwritten:
            return
        try:
            self._journal.append(bytes(self._unwritten), self._unwritten_offset)
        except JournalError as error:
            self.error = str(error)
            return
        self._unwritten.clear()
        self.error = ""
        self._on_stalled(False)

    def close(self) -> None:
        """Try once more to write what waits, then close the journal."""
        self.retry()
        self._journal.close()
