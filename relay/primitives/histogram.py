"""Quantiles of many latencies in little memory; pure. `now` is monotonic seconds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import ceil

# Each octave has 16 equal buckets, and a value's five leading bits select one, so the middle of a bucket is
# at most 1/32 off. The octaves go from 512 ns to 2**40 ns, about 1,100 s; values outside fall into the first
# and the last bucket.
_LEADING_BITS = 5
_FIRST_NS = 1 << 9
_END_NS = 1 << 40
_WITHOUT_END_NS = 1 << 63
_BASE = 5 * 16 + 15
_BUCKETS = (40 - 9) * 16 + 2


class LatencyHistogram:
    """Counts of nanoseconds in log-linear buckets. Quantiles are within 3.2 % from 1 us to 1000 s.

    Shorter and negative times (a clock that stepped) count as the shortest, longer ones as the maximum.
    """

    __slots__ = ("_counts", "max_ns")

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.max_ns = 0

    @property
    def count(self) -> int:
        return sum(self._counts)

    def add(self, ns: int) -> None:
        self._counts[_bucket(ns)] += 1
        if ns > self.max_ns:
            self.max_ns = ns

    def add_many(self, ns: int, n: int) -> None:
        """The same value `n` times."""
        if n > 0:
            self._counts[_bucket(ns)] += n
            if ns > self.max_ns:
                self.max_ns = ns

    def cumulative_counts(self, bounds_ns: Sequence[int]) -> list[int]:
        """How many values are at most each bound, within 3.2 % of it, and last how many there are."""
        below = list(accumulate(self._counts, initial=0))
        return [*(below[_buckets_up_to(bound)] for bound in bounds_ns), below[-1]]

    def quantile(self, q: float) -> int | None:
        """The value below which a share of `q` lies; None as long as there is none at all."""
        rank = max(1, ceil(q * self.count))
        for bucket, n in enumerate(self._counts):
            rank -= n
            if rank <= 0:
                return min(_middle_ns(bucket), self.max_ns)
        return None

    def merge(self, other: LatencyHistogram) -> None:
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.max_ns = max(self.max_ns, other.max_ns)

    def reset(self) -> None:
        self._counts = [0] * _BUCKETS
        self.max_ns = 0

    def to_list(self) -> list[int]:
        """For transport: the maximum, then bucket and count of each bucket that is not empty."""
        pairs = [(bucket, n) for bucket, n in enumerate(self._counts) if n]
        return [self.max_ns, *(figure for pair in pairs for figure in pair)]

    @classmethod
    def from_list(cls, figures: Sequence[int]) -> LatencyHistogram:
        histogram = cls()
        histogram.max_ns = figures[0]
        for bucket, n in zip(figures[1::2], figures[2::2], strict=True):
            histogram._counts[bucket] = n
        return histogram


def _bucket(ns: int) -> int:
    if ns < _FIRST_NS:
        return 0
    if ns >= _END_NS:
        return _BUCKETS - 1
    shift = ns.bit_length() - _LEADING_BITS
    return (shift << 4) + (ns >> shift) - _BASE


def _middle_ns(bucket: int) -> int:
    if bucket == 0:
        return _FIRST_NS // 2
    if bucket == _BUCKETS - 1:
        return _WITHOUT_END_NS
    octave, step = divmod(bucket + _BASE, 16)
    return (2 * (16 + step) + 1) << (octave - 2)


def _buckets_up_to(bound_ns: int) -> int:
    """How many buckets, from the first on, have their middle at the bound or before it."""
    bucket = _bucket(bound_ns)
    return bucket + (_middle_ns(bucket) <= bound_ns)


class RollingHistogram:
    """A histogram of the last `window_s` to twice `window_s`; `cumulative_counts` is of all values ever
    added.

    Adding needs no clock: queries move the window on, so query at least once in a window.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._current = LatencyHistogram()
        self._previous = LatencyHistogram()
        self._forgotten = LatencyHistogram()
        self._turn_at: float | None = None

    def add(self, ns: int) -> None:
        self._current.add(ns)

    def add_many(self, ns: int, n: int) -> None:
        self._current.add_many(ns, n)

    def quantile(self, q: float, now: float) -> int | None:
        return self.merged(now).quantile(q)

    def max_ns(self, now: float) -> int | None:
        """None as long as there is no value."""
        both = self.merged(now)
        return both.max_ns if both.count else None

    def merged(self, now: float) -> LatencyHistogram:
        """A copy of the window, for several queries at once."""
        self._turn(now)
        both = LatencyHistogram()
        both.merge(self._previous)
        both.merge(self._current)
        return both

    def cumulative_counts(self, bounds_ns: Sequence[int]) -> list[int]:
        """How many values since the start are at most each bound, and last how many there are."""
        parts = (self._forgotten, self._previous, self._current)
        return [
            sum(counts) for counts in zip(*(part.cumulative_counts(bounds_ns) for part in parts), strict=True)
        ]

    def _turn(self, now: float) -> None:
        if self._turn_at is None:
            self._turn_at = now + self._window_s
        elif now >= self._turn_at:
            self._forgotten.merge(self._previous)
            self._previous, self._current = self._current, self._previous
            self._current.reset()
            on_time = now < self._turn_at + self._window_s
            self._turn_at = self._window_s + (self._turn_at if on_time else now)
