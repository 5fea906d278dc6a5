"""CPU time and memory of processes, from Linux's /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME, _PARENT = 11, 12, 1


@dataclass(frozen=True, slots=True)
class Memory:
    """`pss_bytes` shares pages among the processes that map them, so that sums over processes are true."""

    rss_bytes: int
    pss_bytes: int


def cpu_s(pid: int) -> float:
    """User and system time of all its threads; 0 for a process that has ended."""
    fields = _stat(pid)
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_PER_S if fields else 0.0


def memory(pid: int) -> Memory:
    """Zeros for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return Memory(0, 0)
    found = {
        line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("Rss:", "Pss:"))
    }
    return Memory(found.get("Rss", 0), found.get("Pss", 0))


def descendants(root: int) -> set[int]:
    """Every live process below `root`, without `root` itself."""
    parents = {
        int(path.name): int(fields[_PARENT])
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and (fields := _stat(int(path.name)))
    }
    found: set[int] = set()
    fresh = {root}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return found


def command_line(pid: int) -> str:
    """With its arguments, or the title that it gave itself; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _stat(pid: int) -> list[str]:
    """The fields after the command's name, which may hold spaces and parentheses; empty if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
