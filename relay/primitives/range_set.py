"""A set of whole numbers, stored as ranges, because the ids of a gap are mostly consecutive. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class RangeSet:
    """Ranges `(first, last)` include both ends; they are sorted, and never adjacent."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def __iter__(self) -> Iterator[Range]:
        return iter(zip(self._firsts, self._lasts, strict=True))

    def __len__(self) -> int:
        """How many numbers."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    @property
    def runs(self) -> int:
        return len(self._firsts)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and tuple(self) == tuple(other)

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    def add(self, first: int, last: int) -> None:
        """An empty range, with `last` below `first`, adds nothing."""
        if last < first:
            return
        start = bisect_left(self._lasts, first - 1)
        end = bisect_right(self._firsts, last + 1)
        if start < end:
            first = min(first, self._firsts[start])
            last = max(last, self._lasts[end - 1])
        self._firsts[start:end] = [first]
        self._lasts[start:end] = [last]

    def remove(self, first: int, last: int) -> None:
        start = bisect_left(self._lasts, first)
        end = bisect_right(self._firsts, last)
        if last < first or start >= end:
            return
        left = (self._firsts[start], first - 1)
        right = (last + 1, self._lasts[end - 1])
        kept = [each for each in (left, right) if each[0] <= each[1]]
        self._firsts[start:end] = [each[0] for each in kept]
        self._lasts[start:end] = [each[1] for each in kept]

    def common(self, other: RangeSet) -> RangeSet:
        """The numbers that are in both."""
        found = RangeSet()
        for first, last in self:
            start = bisect_left(other._lasts, first)
            end = bisect_right(other._firsts, last)
            for at in range(start, end):
                found.add(max(first, other._firsts[at]), min(last, other._lasts[at]))
        return found
