"""Arrivals: exact rates, and the measured traffic's mean and bursts over simulated minutes."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from math import floor, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.binance.streams import Venue, parse_stream
from simulator.traffic import Arrivals, Listed, Measured, Uniform, arrivals, bursts, evenly, profile

MINUTES = 5
CHANNELS = ("trade", "bookTicker", "ticker", "depth20@100ms", "markPrice@1s")
TEN = tuple(f"{symbol}@{channel}" for symbol in ("btcusdt", "ethusdt") for channel in CHANNELS)


def of_stream(name: str, seed: int = 1, start_s: float = 0.0, scale: float = 1.0) -> Arrivals:
    return arrivals(parse_stream(Venue.USDM, name), seed, start_s, scale)


def times(of: Arrivals, until_s: float) -> list[float]:
    """Every due time up to `until_s`, one event at a time."""
    found = []
    while (at := of.next_s) <= until_s:
        assert of.take_due(at, 1) == 1
        found.append(at)
    return found


def most_within(sorted_times: list[float], window_s: float) -> int:
    """The largest number of events in any span of `window_s`."""
    return max(bisect_left(sorted_times, at + window_s) - place for place, at in enumerate(sorted_times))


@pytest.fixture(scope="module", params=[1, 2, 77])
def all_times(request: pytest.FixtureRequest) -> dict[str, list[float]]:
    return {name: times(of_stream(name, seed=request.param), MINUTES * 60.0) for name in TEN}


def test_ten_streams_together_have_the_measured_mean(all_times: dict[str, list[float]]) -> None:
    mean = sum(map(len, all_times.values())) / (MINUTES * 60)
    assert 650 < mean < 750


def test_ten_streams_together_have_the_measured_bursts(all_times: dict[str, list[float]]) -> None:
    together = sorted(at for found in all_times.values() for at in found)
    assert 4000 < most_within(together, 1.0) < 5000
    assert 1500 < most_within(together, 0.1) < 1950
    assert 560 < most_within(together, 0.01) < 720


@pytest.mark.parametrize("start_s", [0.0, 17.0, 39.0, 123.4])
def test_every_minute_holds_a_big_burst(all_times: dict[str, list[float]], start_s: float) -> None:
    together = sorted(at for found in all_times.values() for at in found if start_s <= at < start_s + 60)
    assert most_within(together, 1.0) > 3500


def test_a_burst_hits_trades_and_book_tickers_of_both_symbols(all_times: dict[str, list[float]]) -> None:
    trades = all_times["btcusdt@trade"]
    peak_s = max(trades, key=lambda at: bisect_left(trades, at + 0.1) - bisect_left(trades, at))
    for name in ("btcusdt@bookTicker", "ethusdt@trade", "ethusdt@bookTicker"):
        found = all_times[name]
        within = bisect_left(found, peak_s + 0.1) - bisect_left(found, peak_s)
        assert within > 5 * len(found) / (MINUTES * 600)


def test_slow_streams_keep_binances_intervals(all_times: dict[str, list[float]]) -> None:
    for channel, period_s in (("ticker", 2.0), ("depth20@100ms", 0.1), ("markPrice@1s", 1.0)):
        found = all_times[f"btcusdt@{channel}"]
        assert all(later - earlier == pytest.approx(period_s) for earlier, later in pairwise(found))


def test_a_stream_that_starts_later_has_the_same_times_from_there_on() -> None:
    whole = times(of_stream("btcusdt@trade"), 30.0)
    late = times(of_stream("btcusdt@trade", start_s=12.5), 30.0)
    assert late == [at for at in whole if at > 12.5]


def test_the_scale_multiplies_every_stream() -> None:
    for name in TEN:
        one, ten = (of_stream(name, scale=scale).take_due(60.0, inf) for scale in (1.0, 10.0))
        assert ten == pytest.approx(10 * one, rel=0.15, abs=2)


@given(
    steps=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=20),
    limits=st.lists(st.integers(1, 300), min_size=20, max_size=20),
    name=st.sampled_from(["btcusdt@trade", "btcusdt@depth20@100ms"]),
)
@settings(max_examples=40, deadline=None)
def test_however_it_is_asked_no_event_is_lost_or_told_twice(
    steps: list[float], limits: list[int], name: str
) -> None:
    asked, at_s, count = of_stream(name), 0.0, 0
    for step, limit in zip(steps, limits, strict=False):
        at_s += step
        count += asked.take_due(at_s, limit)
    count += asked.take_due(at_s, inf)
    assert count == of_stream(name).take_due(at_s, inf)
    assert asked.next_s > at_s


@given(rate=st.floats(0.1, 100_000), start_s=st.floats(0, 1000), span_s=st.floats(0, 20))
@settings(deadline=None)
def test_an_even_rate_is_exact(rate: float, start_s: float, span_s: float) -> None:
    taken = Uniform(rate, start_s).take_due(start_s + span_s, inf)
    assert taken - 1 == pytest.approx(floor(span_s * rate), abs=1)


def test_even_streams_with_different_phases_never_fall_due_together() -> None:
    found = [times(evenly(100.0, 0.0, phase), 1.0) for phase in (0.0, 0.25, 0.5)]
    together = sorted(at for part in found for at in part)
    assert all(later - earlier > 0.002 for earlier, later in pairwise(together))


@pytest.mark.parametrize("rate", [0.0, 100.0])
def test_nothing_is_due_before_the_next_time(rate: float) -> None:
    of = Uniform(rate, 5.0)
    assert of.take_due(4.999, inf) == 0
    assert of.next_s == (5.0 if rate else inf)


def test_a_silent_profile_never_sends() -> None:
    quiet = Measured(
        profile(parse_stream(Venue.USDM, "btcusdt@trade"))._replace(rate_per_s=0, burst_share=0), 1, "x", 0
    )
    assert quiet.next_s == inf
    assert quiet.take_due(1e9, inf) == 0


def test_bursts_are_the_same_for_everybody_who_has_the_seed() -> None:
    assert list(bursts(3, 0, 600)) == list(bursts(3, 0, 600))
    assert list(bursts(3, 0, 600)) != list(bursts(4, 0, 600))


@pytest.mark.parametrize(
    ("venue", "name", "rate"),
    [
        (Venue.SPOT, "btcusdt@ticker", 1.0),
        (Venue.COINM, "btcusd_perp@ticker", 2.0),
        (Venue.USDM, "btcusdt@depth", 4.0),
        (Venue.USDM, "btcusdt@depth@0ms", 19.0),
        (Venue.SPOT, "btcusdt@depth20", 1.0),
        (Venue.USDM, "btcusdt@markPrice", 1 / 3),
        (Venue.SPOT, "btcusdt@kline_1s", 1.0),
        (Venue.SPOT, "btcusdt@kline_1m", 0.5),
        (Venue.USDM, "btcusdt@kline_1m", 4.0),
    ],
)
def test_each_venue_has_its_own_pace(venue: Venue, name: str, rate: float) -> None:
    assert profile(parse_stream(venue, name)).rate_per_s == pytest.approx(rate)


@given(
    st.lists(st.floats(0, 100), max_size=30).map(sorted), st.lists(st.floats(0, 120), max_size=5).map(sorted)
)
def test_listed_events_are_taken_once_each_when_they_are_due(due: list[float], looks: list[float]) -> None:
    of, taken = Listed(due), 0
    for until_s in looks:
        taken += of.take_due(until_s, inf)
        assert taken == sum(at <= until_s for at in due)
        assert of.next_s == min((at for at in due if at > until_s), default=inf)
