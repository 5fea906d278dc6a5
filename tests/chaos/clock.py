"""A clock that jumps when a test says so, in the processes that follow it; monotonic time is untouched."""

from __future__ import annotations

import math
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
        # Since when, in monotonic seconds, it has been how far ahead of that, in ns.
        self._spans = [(time.monotonic(), time.time_ns() - time.monotonic_ns())]

    def step(self, seconds: float) -> None:
        """From now on it is so much later than a moment ago."""
        by_ns = round(seconds * 1e9)
        self._map[:] = _OFFSET.pack(_OFFSET.unpack_from(self._map)[0] + by_ns)
        self._spans.append((time.monotonic(), self._spans[-1][1] + by_ns))

    def when(self, at_ns: int) -> float:
        """The monotonic time at which it showed this, the latest of several; a time that it left out was
        passed when it was set."""
        ends = [*(since for since, _ in self._spans[1:]), math.inf]
        found = [
            min((at_ns - ahead_ns) / 1e9, end)
            for (since, ahead_ns), end in zip(self._spans, ends, strict=True)
            if at_ns - ahead_ns >= since * 1e9
        ]
        return found[-1] if found else self._spans[0][0]


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
