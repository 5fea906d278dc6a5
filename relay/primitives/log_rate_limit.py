"""How often one place in the code may log: what repeats itself is counted, not written. Pure.

`now` is monotonic seconds. A place is whatever tells one logging call from another.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

# Enough for what one incident has to say, and so little that no disk is filled by its own errors.
LINES, WINDOW_S = 5, 10.0
# A place that goes on and on may do so ever more seldom: NATS may be away for a day.
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
        """Ask `over` before."""
        spell = self._windows.get(place)
        if spell is None:
            length_s = self._lengths_s.get(place, WINDOW_S)
            spell = self._windows[place] = _Window(now + length_s, length_s)
        spell.lines += 1
        spell.last = line
        return spell.lines <= LINES

    def expired(self, now: float) -> list[tuple[_Line, int]]:
        """Of each place whose spell is over and that was denied lines: the last of them, and how many."""
        ended = [(place, spell) for place, spell in self._windows.items() if now >= spell.ends_at]
        told = []
        for place, spell in ended:
            del self._windows[place]
            self._lengths_s.pop(place, None)
            if spell.last is not None and spell.lines > LINES:
                self._lengths_s[place] = min(2 * spell.length_s, MAX_WINDOW_S)
                told.append((spell.last, spell.lines - LINES))
        return told
