"""A limit on the memory of chosen processes, as a container has one: cgroups, version 1."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_ROOT = Path("/sys/fs/cgroup/memory")


class SmallMemory:
    """Without a limit until `limit`. Skips the test where this user may set none."""

    def __init__(self) -> None:
        self.path = _ROOT / f"sluice-{os.getpid()}"
        self.limit_bytes = 0

    def __enter__(self) -> Self:
        try:
            self.path.mkdir()
        except OSError:
            pytest.skip("a memory limit takes cgroups of version 1 and the right to make one")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Once all its processes have ended."""
        deadline = time.monotonic() + 10.0
        while self.path.exists() and time.monotonic() < deadline:
            with suppress(OSError):
                self.path.rmdir()
            time.sleep(0.05)

    def limit(self, size_bytes: int) -> None:
        self.limit_bytes = size_bytes
        (self.path / "memory.limit_in_bytes").write_text(str(size_bytes))

    @property
    def used_bytes(self) -> int:
        """Without what the kernel keeps of files, such as journals, and gives back when it is short."""
        return self._number("memory.stat", "total_rss")

    @property
    def kills(self) -> int:
        return self._number("memory.oom_control", "oom_kill")

    def _number(self, file: str, name: str) -> int:
        fields = dict(line.split() for line in (self.path / file).read_text().splitlines())
        return int(fields[name])


def enter(path: Path) -> None:
    """Move this process below the limit."""
    (path / "cgroup.procs").write_text(str(os.getpid()))


def choose_first(pid: int) -> None:
    """When memory is short, this process goes before all others."""
    Path(f"/proc/{pid}/oom_score_adj").write_text("1000")


def devour(path: Path) -> None:
    """Never returns: takes memory below the limit until somebody is killed."""
    enter(path)
    taken = []
    while True:
        taken.append(bytearray(1 << 20))
        time.sleep(0.002)
