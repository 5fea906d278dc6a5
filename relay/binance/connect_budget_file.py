"""The connect budget of one node: a small file that its streams share under a lock, so no process owns it.

A lock ends with the process that holds it, and the file is replaced as a whole, so a kill at any moment
leaves the old content or the new one. Does file I/O, of a few hundred bytes and without waiting for the lock;
it is here, and not under relay.adapters, because it is only the storage of ConnectBudget.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relay.binance.connect_budget import ConnectBudget
from relay.primitives.atomic_file import replace_file


class ConnectBudgetFile:
    """`directory` is the same for all streams of the node, and private to them."""

    def __init__(self, directory: Path) -> None:
        self._lock = directory / "connects.lock"
        self._log = directory / "connects"

    @contextmanager
    def opened(self) -> Iterator[ConnectBudget]:
        """The budget, saved afterwards. Raises BlockingIOError while another process has it, and OSError."""
        lock = os.open(self._lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            before = self._log.read_bytes() if self._log.exists() else b""
            log = ConnectBudget.decode(before)
            yield log
            after = log.encode()
            if after != before:
                replace_file(self._log, after)
        finally:
            os.close(lock)
