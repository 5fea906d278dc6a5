"""What the consumer counts: what arrived of each stream, how often, in which order and how late. Pure.

A message is identified by the label in its envelope and the exchange's trade id; its age is the time since
the exchange's own stamp. Ids of a stream are contiguous, so a byte per id shows what was seen.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Ids this far below the first one seen still count as late arrivals and not as strange messages.
_MARGIN = 1 << 16
_LABEL_AT = len(b'{"stream":"')
QUANTILES = (
    *(n / 100 for n in range(100)),
    *(0.99 + n / 1000 for n in range(10)),
    *(0.999 + n / 10_000 for n in range(10)),
    1.0,
)


class Tally:
    """The counts of one stream. `late_us` and `stamp_us` are parallel, one pair for each message timed."""

    __slots__ = ("_base", "_last", "_seen", "duplicates", "late_us", "out_of_order", "stamp_us", "unique")

    def __init__(self) -> None:
        self.unique = 0
        self.duplicates = 0
        self.out_of_order = 0
        self.late_us = array("q")
        self.stamp_us = array("q")
        self._seen = bytearray()
        self._base = 0
        self._last = -1

    def add(self, event_id: int) -> None:
        seen = self._seen
        if not seen:
            self._base = event_id - _MARGIN
        at = event_id - self._base
        if at < 0:
            raise ValueError(f"id {event_id} is far below the first one seen")
        if at >= len(seen):
            seen.extend(bytes(at - len(seen) + _MARGIN))
        if seen[at]:
            self.duplicates += 1
            return
        seen[at] = 1
        self.unique += 1
        if event_id < self._last:
            self.out_of_order += 1
        else:
            self._last = event_id


class Tallies:
    """The counts of all streams. `timed` is False in the lean mode, which counts ids alone."""

    def __init__(self, *, timed: bool = True) -> None:
        self.streams: dict[bytes, Tally] = {}
        self._timed = timed

    def add(self, buffer: bytes, start: int, end: int, now_us: int) -> None:
        """Enter the message in `buffer[start:end]`, read at `now_us`; raises ValueError for a strange one."""
        find = buffer.index
        label = buffer[start + _LABEL_AT : find(b'"', start + _LABEL_AT, end)]
        tally = self.streams.get(label)
        if tally is None:
            tally = self.streams[label] = Tally()
        at = find(b'"t":', start, end) + 4
        tally.add(int(buffer[at : find(b",", at, end)]))
        if self._timed:
            at = find(b'"E":', start, end) + 4
            stamp_us = int(buffer[at : find(b",", at, end)])
            tally.stamp_us.append(stamp_us)
            tally.late_us.append(now_us - stamp_us)

    @property
    def unique(self) -> int:
        return sum(tally.unique for tally in self.streams.values())


@dataclass(frozen=True, slots=True)
class Spell:
    """Latency of the messages stamped within one time span of a run: for the plot of a flood."""

    start_s: float
    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def quantile(ordered: Sequence[int], q: float) -> float:
    """The smallest value that at least a share `q` of `ordered` does not exceed; `ordered` is not empty."""
    return ordered[max(0, min(len(ordered) - 1, -int(-q * len(ordered) // 1) - 1))]


def quantiles_ms(late_us: Iterable[int]) -> list[float]:
    """At `QUANTILES`; empty if there is no value."""
    ordered = sorted(late_us)
    return [round(quantile(ordered, q) / 1000, 4) for q in QUANTILES] if ordered else []


def spells(tallies: Iterable[Tally], spell_s: float) -> list[Spell]:
    """The messages by time span of their stamps, from the first stamp on; empty spans are left out."""
    chosen = [tally for tally in tallies if tally.stamp_us]
    if not chosen:
        return []
    begin_us = min(tally.stamp_us[0] for tally in chosen)
    buckets: dict[int, list[int]] = {}
    for tally in chosen:
        for stamp_us, late_us in zip(tally.stamp_us, tally.late_us, strict=True):
            buckets.setdefault(int((stamp_us - begin_us) / 1e6 / spell_s), []).append(late_us)
    return [_spell(number * spell_s, sorted(buckets[number])) for number in sorted(buckets)]


def _spell(start_s: float, ordered: Sequence[int]) -> Spell:
    p50, p99, most = (round(quantile(ordered, q) / 1000, 4) for q in (0.5, 0.99, 1.0))
    return Spell(round(start_s, 3), len(ordered), p50, p99, most)
