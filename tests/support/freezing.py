"""Processes that live and answer nothing, as when their machine swaps or a debugger holds them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.polling import until


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Its threads stop some moments after the signal was sent: without the wait they may answer once more."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: _states(pid) == {"T"}, f"all threads of process {pid} have stopped", 10.0, 0.001)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _states(pid: int) -> set[str]:
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return {thread.read_text().rpartition(")")[2].split()[0] for thread in threads}
