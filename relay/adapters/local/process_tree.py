"""The processes below ours, so that none is left at the end. On Linux; elsewhere none are seen."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

POLL_S = 0.02


class Process(NamedTuple):
    """A process and not merely its number, which another one may get later."""

    pid: int
    started_ticks: int


def children(pid: int) -> frozenset[Process]:
    return frozenset(process for parent, process in _all() if parent == pid)


def descendants(roots: Collection[Process]) -> frozenset[Process]:
    """The roots and all below them."""
    below = defaultdict(list)
    for parent, process in _all():
        below[parent].append(process)
    found, waiting = set(), list(roots)
    while waiting:
        process = waiting.pop()
        if process not in found:
            found.add(process)
            waiting += below[process.pid]
    return frozenset(found)


def name_of(process: Process) -> str:
    """Of the program, 15 characters at most; empty if it has ended."""
    try:
        return Path(f"/proc/{process.pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def users_of(directory: Path) -> frozenset[Process]:
    """Processes of this user that have a file below the directory open."""
    below = f"{directory}/"
    return frozenset(
        process for _, process in _all() if any(path.startswith(below) for path in _open_files(process.pid))
    )


def _open_files(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                yield str(link.readlink())


def end_processes(processes: Collection[Process], grace_s: float) -> None:
    """Wait for them to end by themselves; kill what is still there after `grace_s`."""
    deadline = time.monotonic() + grace_s
    left = [process for process in processes if is_running(process)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = [process for process in left if is_running(process)]
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def is_running(process: Process) -> bool:
    """A zombie, which only waits for its parent to take notice, does not run."""
    found = _stat(process.pid)
    return found is not None and found[0] != "Z" and found[2] == process


def _all() -> Iterator[tuple[int, Process]]:
    for entry in Path("/proc").glob("[0-9]*"):
        found = _stat(int(entry.name))
        if found is not None:
            yield found[1], found[2]


def _stat(pid: int) -> tuple[str, int, Process] | None:
    """State, parent and identity, from proc_pid_stat(5); the name in it may hold spaces and brackets."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = line[line.rindex(")") + 2 :].split()
    return fields[0], int(fields[1]), Process(pid, int(fields[19]))
