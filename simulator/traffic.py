"""When events are due: exact rates, and a model of measured traffic with its bursts.

The model follows captures of August 2024 (spot and USD-M, BTC and ETH, 12 streams, 346 s): 704 messages/s on
average, at most 4537 in one second, 1774 in 100 ms, 644 in 10 ms. It is scaled so that the ten default USD-M
streams together show these figures. Times are seconds since the exchange started.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from math import floor, inf
from random import Random
from typing import NamedTuple, Protocol

from relay.binance.streams import StreamKind, StreamSpec, Venue

# One big burst in each cycle, 5 to 15 s from its start, so that any span of 60 s holds a whole one.
_BIG_CYCLE_S, _BIG_FROM_S, _BIG_TO_S = 40.0, 5.0, 15.0
_BIG_EVENTS = 3950
_SMALL_CYCLE_S = 5.0
_SMALL_EVENTS = (100, 400)
# Of a burst's events, this share falls between these seconds from its start, evenly distributed.
_BURST_SHAPE = ((0.155, 0.0, 0.01), (0.260, 0.01, 0.1), (0.585, 0.1, 1.0))


class Arrivals(Protocol):
    """The due times of one stream's events."""

    def take_due(self, until_s: float, limit: float) -> int:
        """Take at most `limit` events that are due by `until_s`; returns how many."""
        ...

    @property
    def next_s(self) -> float:
        """When the next event is due, `inf` if never."""
        ...


class Uniform:
    """Exactly `rate_per_s` events a second, evenly spaced; `phase` shifts them by a part of the spacing."""

    def __init__(self, rate_per_s: float, start_s: float, phase: float = 0.0) -> None:
        self._rate = rate_per_s
        self._start_s = start_s
        self._phase = phase
        self._taken = 0

    def take_due(self, until_s: float, limit: float) -> int:
        if self._rate <= 0:
            return 0
        due = floor((until_s - self._start_s) * self._rate - self._phase) + 1
        # Rounding may put this formula and `next_s` on different sides of `until_s`; `next_s` is right.
        due += self._at_s(due) <= until_s
        count = int(min(max(due - self._taken, 0), limit))
        self._taken += count
        return count

    @property
    def next_s(self) -> float:
        return self._at_s(self._taken) if self._rate > 0 else inf

    def _at_s(self, index: int) -> float:
        return self._start_s + (index + self._phase) / self._rate


class Listed:
    """Arrivals at these ascending times."""

    def __init__(self, times_s: Sequence[float]) -> None:
        self._times = times_s
        self._at = 0

    def take_due(self, until_s: float, limit: float) -> int:
        due = bisect_right(self._times, until_s, self._at) - self._at
        taken = int(min(due, limit))
        self._at += taken
        return taken

    @property
    def next_s(self) -> float:
        return self._times[self._at] if self._at < len(self._times) else inf


def evenly(rate_per_s: float, from_s: float, phase: float) -> Uniform:
    """Arrivals after `from_s`, counted from 0: equal rates with different phases never coincide."""
    made = Uniform(rate_per_s, 0.0, phase)
    made.take_due(from_s, inf)
    return made


class Profile(NamedTuple):
    """What a stream contributes: a steady rate, evenly spaced or random (Poisson), and its share of every
    burst.
    """

    rate_per_s: float
    burst_share: float = 0.0
    even: bool = False


class Measured:
    """A steady random rate with the bursts that all streams of one seed share.

    Each second of the schedule is a pure function of seed, stream and second.
    """

    def __init__(self, profile: Profile, seed: int, stream: str, start_s: float, scale: float = 1.0) -> None:
        self._profile = profile
        self._seed = seed
        self._stream = stream
        self._scale = scale
        self._second = max(floor(start_s), 0)
        self._times = self._drawn(self._second)
        self._at = bisect_right(self._times, start_s)

    def take_due(self, until_s: float, limit: float) -> int:
        count = 0
        while count < limit and self.next_s <= until_s:
            due = bisect_right(self._times, until_s, self._at) - self._at
            taken = int(min(due, limit - count))
            self._at += taken
            count += taken
        return count

    @property
    def next_s(self) -> float:
        if self._profile.rate_per_s <= 0 and self._profile.burst_share <= 0:
            return inf
        while self._at == len(self._times):
            self._second += 1
            self._times, self._at = self._drawn(self._second), 0
        return self._times[self._at]

    def _drawn(self, second: int) -> list[float]:
        random = Random(f"{self._seed}:{self._stream}:{second}")
        times = list(_steady(random, self._profile.rate_per_s * self._scale, second))
        for at_s, events in bursts(self._seed, second - 1, second + 1):
            wanted = events * self._profile.burst_share * self._scale
            shape = Random(f"{self._seed}:{self._stream}:{at_s}")
            times.extend(at for at in burst_times(shape, at_s, wanted) if second <= at < second + 1)
        times.sort()
        return times


def bursts(seed: int, from_s: float, to_s: float) -> Iterator[tuple[float, int]]:
    """Start and total size of each burst that starts within the span."""
    for cycle in range(max(floor(from_s / _BIG_CYCLE_S), 0), floor(to_s / _BIG_CYCLE_S) + 1):
        random = Random(f"{seed}:big:{cycle}")
        at_s = cycle * _BIG_CYCLE_S + random.uniform(_BIG_FROM_S, _BIG_TO_S)
        if from_s <= at_s < to_s:
            yield at_s, _BIG_EVENTS
    for cycle in range(max(floor(from_s / _SMALL_CYCLE_S), 0), floor(to_s / _SMALL_CYCLE_S) + 1):
        random = Random(f"{seed}:small:{cycle}")
        at_s = (cycle + random.random()) * _SMALL_CYCLE_S
        if from_s <= at_s < to_s:
            yield at_s, random.randint(*_SMALL_EVENTS)


def burst_times(random: Random, at_s: float, events: float) -> list[float]:
    times: list[float] = []
    for share, from_s, to_s in _BURST_SHAPE:
        count = floor(events * share + random.random())
        times.extend(at_s + random.uniform(from_s, to_s) for _ in range(count))
    return times


def _steady(random: Random, rate_per_s: float, second: int) -> Iterator[float]:
    at = float(second)
    while rate_per_s > 0 and (at := at + random.expovariate(rate_per_s)) < second + 1:
        yield at


# Steady rate and share of bursts of the two measured symbols; any other symbol is quiet.
_TRADES = {"btc": (38.0, 0.36), "eth": (40.0, 0.14)}
_BOOK_TICKERS = {"btc": (248.0, 0.27), "eth": (201.0, 0.23)}
_QUIET = (15.0, 0.03)
# Relative to USD-M, in the same captures.
_VENUE_SCALE = {Venue.SPOT: 0.55, Venue.USDM: 1.0, Venue.COINM: 0.35}
# Binance sends these at fixed intervals; a partial book or diff without a speed is faster on futures.
_TICKER_PERIODS_S = {Venue.SPOT: 1.0, Venue.USDM: 2.0, Venue.COINM: 0.5}
_DEPTH_PERIODS_S = {Venue.SPOT: 1.0, Venue.USDM: 0.25, Venue.COINM: 0.25}
# `@depth@0ms` is paced by the book; 19 a second were measured.
_SPEEDS_S = {"0ms": 1 / 19, "100ms": 0.1, "500ms": 0.5, "1s": 1.0}


def profile(spec: StreamSpec) -> Profile:
    """How often a simulated stream sends."""
    scale = _VENUE_SCALE[spec.venue]
    if spec.kind is StreamKind.TRADE:
        return _bursty(_TRADES, spec, scale)
    if spec.kind is StreamKind.BOOK_TICKER:
        return _bursty(_BOOK_TICKERS, spec, scale)
    if spec.kind is StreamKind.AGG_TRADE:
        return _bursty(_TRADES, spec, scale * 0.6)
    if spec.kind in (StreamKind.BLOCK_TRADE, StreamKind.FORCE_ORDER):
        return Profile(0.2)
    return Profile(1 / _period_s(spec), even=True)


def _bursty(rates: dict[str, tuple[float, float]], spec: StreamSpec, scale: float) -> Profile:
    rate_per_s, share = rates.get(spec.symbol[:3], _QUIET)
    return Profile(rate_per_s * scale, share * scale)


def _period_s(spec: StreamSpec) -> float:
    speed = _SPEEDS_S.get(spec.channel.rpartition("_")[2])
    if spec.kind is StreamKind.MARK_PRICE:
        return speed or 3.0
    if spec.kind in (StreamKind.DEPTH_DIFF, StreamKind.DEPTH_PARTIAL):
        return speed or _DEPTH_PERIODS_S[spec.venue]
    if spec.interval:
        return 0.25 if spec.venue is not Venue.SPOT else 1.0 if spec.interval == "1s" else 2.0
    return _TICKER_PERIODS_S[spec.venue]


def arrivals(spec: StreamSpec, seed: int, start_s: float, scale: float = 1.0, phase: float = 0.0) -> Arrivals:
    """The modelled arrivals of one stream from `start_s` on."""
    of = profile(spec)
    if of.even:
        return evenly(of.rate_per_s * scale, start_s, phase)
    return Measured(of, seed, spec.name, start_s, scale)
