"""A clock that jumps when a test says so, in the processes that follow it; monotonic time is untouched."""

from __future__ import annotations

import time
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from struct import Struct

_OFFSET = Struct("<q")


class WallClock:
    """Kept as an offset from the true time, in ns, in a file that all who follow it have mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(_OFFSET.pack(0))
        self._map = _mapped(path)

    def step(self, seconds: float) -> None:
        """From now on it is so much later than a moment ago."""
        offset_ns = _OFFSET.unpack_from(self._map)[0] + round(seconds * 1e9)
        self._map[:] = _OFFSET.pack(offset_ns)


def follow(path: Path) -> None:
    """Let everything in this process that asks for the time of day ask that clock."""
    shared = _mapped(path)

    def stepped(true_ns: Callable[[], int]) -> Callable[[], int]:
        return lambda: true_ns() + _OFFSET.unpack_from(shared)[0]

    time.time_ns = now_ns = stepped(time.time_ns)
    time.time = lambda: now_ns() / 1e9


def _mapped(path: Path) -> mmap:
    with path.open("r+b") as file:
        return mmap(file.fileno(), _OFFSET.size)
