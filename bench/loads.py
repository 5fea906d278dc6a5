"""What is offered to each system, and for how long. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

# Ten trade streams: their ids are contiguous, so a consumer can say which message is missing.
SYMBOLS = ("btc", "eth", "bnb", "sol", "xrp", "doge", "ada", "avax", "link", "ltc")
STREAMS = tuple(f"{symbol}usdt@trade" for symbol in SYMBOLS)
FLOODED, CALM_STREAMS = STREAMS[0], STREAMS[1:]
CALM_RATE_PER_S = 1000
HIGH_RATE_PER_S = 25_000
# More than any of the systems can deliver, less than the exchange can send.
FLOOD_RATE_PER_S = 80_000
CALM_IN_FLOOD_PER_S = 100
GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """`rates` are exact and even, per stream. `groups` are streams whose latency is reported together."""

    name: str
    seconds: float
    rates: dict[str, float]
    timed: bool = True
    # Messages that have not arrived this long after the end are late.
    grace_s: float = GRACE_S
    groups: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"all": STREAMS})
    # Whether latency is kept as a function of time, for the plot.
    course: bool = False
    # Streams whose messages must all arrive for the load to be over.
    awaited: tuple[str, ...] = STREAMS
    # Seconds from the start of each event, instead of rates.
    arrivals: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def rate_per_s(self) -> float:
        return sum(self.rates.values()) + sum(map(len, self.arrivals.values())) / self.seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """One benchmark: `loads` and `flood` are repeated in every round, the ramp is run in the first.
    `recorded_s` of recorded captures come after the first load, where there are any.

    No round is begun that would probably not end within `limit_s` of the start.
    """

    rounds: int
    loads: tuple[Load, ...]
    flood: Load
    ramp_rates: tuple[int, ...]
    ramp_step_s: float
    ramp_hold_s: float
    limit_s: float
    recorded_s: float


def even(rate_per_s: float) -> dict[str, float]:
    return {stream: rate_per_s / len(STREAMS) for stream in STREAMS}


def calm(seconds: float) -> Load:
    return Load("calm", seconds, even(CALM_RATE_PER_S))


def recorded(seconds: float, tracks: Sequence[Sequence[float]]) -> Load:
    """The busiest span of recorded streams, at its own pace: each track of ascending times on one of
    STREAMS.
    """
    times = sorted(at for track in tracks for at in track)
    begin_s = max(times, key=lambda at: bisect_left(times, at + seconds) - bisect_left(times, at))
    arrivals = {
        name: tuple(at - begin_s for at in track if begin_s <= at < begin_s + seconds)
        for name, track in zip(STREAMS, tracks, strict=False)
    }
    return Load("recorded", seconds, {}, arrivals=arrivals)


def high(seconds: float) -> Load:
    return Load("high", seconds, even(HIGH_RATE_PER_S))


def flood(seconds: float) -> Load:
    rates = {stream: float(CALM_IN_FLOOD_PER_S) for stream in CALM_STREAMS} | {
        FLOODED: float(FLOOD_RATE_PER_S)
    }
    groups = {"calm streams": CALM_STREAMS, "flooded": (FLOODED,)}
    return Load("flood", seconds, rates, groups=groups, course=True, awaited=CALM_STREAMS)


def ramp_step(rate_per_s: float, seconds: float, hold_s: float) -> Load:
    """A step shorter than `hold_s` has proportionally less time to deliver its backlog, or it would
    pass too easily.
    """
    return Load("ramp", seconds, even(rate_per_s), timed=False, grace_s=GRACE_S * seconds / hold_s)


FULL = Plan(
    rounds=3,
    loads=(calm(5), high(10)),
    flood=flood(5),
    ramp_rates=(5000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000, 60_000, 80_000, 100_000),
    ramp_step_s=2,
    ramp_hold_s=10,
    limit_s=570,
    recorded_s=6,
)
QUICK = Plan(
    rounds=1,
    loads=(calm(2), high(2)),
    flood=flood(2),
    ramp_rates=(10_000, 25_000, 50_000),
    ramp_step_s=1,
    ramp_hold_s=2,
    limit_s=110,
    recorded_s=3,
)
