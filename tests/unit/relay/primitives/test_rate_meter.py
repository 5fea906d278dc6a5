import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.primitives.rate_meter import RateMeter


@given(st.floats(0.1, 1e5), st.lists(st.floats(0.01, 30), min_size=1, max_size=30))
def test_a_steady_rate_is_told_exactly(rate_per_s: float, pauses: list[float]):
    meter, now = RateMeter(), 0.0
    meter.update(0, now)
    for pause in pauses:
        now += pause
        meter.update(rate_per_s * now, now)
    assert meter.rate_per_s == pytest.approx(rate_per_s, rel=1e-6)


@given(st.lists(st.tuples(st.floats(0.01, 10), st.integers(0, 1000)), min_size=1, max_size=30))
def test_the_rate_lies_between_the_slowest_and_the_fastest_spell(steps: list[tuple[float, int]]):
    meter, now, total = RateMeter(), 0.0, 0
    meter.update(total, now)
    rates = []
    for pause, events in steps:
        before, now, total = now, now + pause, total + events
        meter.update(total, now)
        rates.append(events / (now - before))
    assert min(rates) * 0.999 <= meter.rate_per_s <= max(rates) * 1.001


def test_half_of_a_change_is_told_after_the_half_life_however_it_is_cut_up():
    for steps in (1, 8):
        meter = RateMeter(half_life_s=2.0)
        meter.update(0, 0.0)
        meter.update(1000, 1.0)
        for step in range(1, steps + 1):
            meter.update(1000, 1.0 + 2.0 * step / steps)
        assert meter.rate_per_s == pytest.approx(500)


def test_one_reading_is_no_rate():
    meter = RateMeter()
    meter.update(5000, 10.0)
    assert meter.rate_per_s == 0.0


def test_readings_at_the_same_moment_are_counted_with_the_next():
    meter = RateMeter()
    for total, now in ((0, 0.0), (50, 0.0), (100, 1.0)):
        meter.update(total, now)
    assert meter.rate_per_s == 100


def test_a_total_that_began_anew_gives_no_negative_rate():
    meter = RateMeter()
    for total, now in ((1000, 0.0), (1100, 1.0), (3, 2.0), (103, 3.0)):
        meter.update(total, now)
    assert meter.rate_per_s == pytest.approx(100)
