"""How often one place in the code may log: further lines are counted instead of written. Pure.

`now` is monotonic seconds. A place is any key that distinguishes one logging call from another.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

# Enough to describe one incident, and so little that errors cannot fill the disk.
LINES, WINDOW_S = 5, 10.0
# The window doubles up to this while a place keeps exceeding its limit: NATS may be unreachable for a day.
MAX_WINDOW_S = 640.0
_Line = TypeVar("_Line")


@dataclass(slots=True)
class _Window(Generic[_Line]):
    ends_at: float
    length_s: float
    lines: int = 0
    last: _Line | None = None


class LogRateLimiter(Generic[_Line]):
    def __init__(self) -> None:
        self._windows: dict[Hashable, _Window[_Line]] = {}
        self._lengths_s: dict[Hashable, float] = {}

    def allows(self, place: Hashable, line: _Line, now: float) -> bool:
        """Call `expired` first."""
        window = self._windows.get(place)
        if window is None:
            length_s = self._lengths_s.get(place, WINDOW_S)
            window = self._windows[place] = _Window(now + length_s, length_s)
        window.lines += 1
        window.last = line
        return window.lines <= LINES

    def expired(self, now: float) -> list[tuple[_Line, int]]:
        """For each place whose window has ended and that was refused lines: the last line, and how many were
        refused."""
        ended = [(place, window) for place, window in self._windows.items() if now >= window.ends_at]
        reported = []
        for place, window in ended:
            del self._windows[place]
            self._lengths_s.pop(place, None)
            if window.last is not None and window.lines > LINES:
                self._lengths_s[place] = min(2 * window.length_s, MAX_WINDOW_S)
                reported.append((window.last, window.lines - LINES))
        return reported
