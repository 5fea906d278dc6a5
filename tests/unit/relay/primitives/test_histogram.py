from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.primitives.histogram import LatencyHistogram, RollingHistogram

MICROSECOND = 1000
SECOND = 10**9

# Evenly over the octaves: small and large values are equally likely.
latencies = st.builds(
    lambda exponent, share: min(1000 * SECOND, int(10**exponent * (1 + 9 * share))),
    st.integers(3, 11),
    st.floats(0, 1),
)


def histogram_of(values: list[int]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(st.lists(latencies, min_size=1, max_size=300), st.floats(0, 1))
def test_quantiles_are_within_five_percent_of_the_sorted_values(values: list[int], q: float):
    exact = sorted(values)[max(1, ceil(q * len(values))) - 1]
    quantile = histogram_of(values).quantile(q)
    assert quantile == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("power", range(10, 39))
def test_values_on_both_sides_of_a_power_of_two_are_told_well(power: int):
    for value in (2**power - 1, 2**power, 2**power + 1, 2**power * 31 // 16):
        assert histogram_of([value, 1000 * SECOND]).quantile(0.5) == pytest.approx(value, rel=0.032)


def test_the_highest_quantile_never_exceeds_the_maximum():
    assert histogram_of([2**20]).quantile(1.0) == 2**20


@given(st.lists(latencies, max_size=100), st.lists(latencies, min_size=1, max_size=8))
def test_counts_up_to_a_bound_are_exact_but_for_values_next_to_it(values: list[int], bounds: list[int]):
    *counts, total = histogram_of(values).cumulative_counts(bounds)
    assert total == len(values)
    for bound, count in zip(bounds, counts, strict=True):
        surely = sum(value < bound * (1 - 1 / 31) for value in values)
        perhaps = sum(value <= bound * (1 + 1 / 31) for value in values)
        assert surely <= count <= perhaps


def test_without_values_there_is_no_quantile():
    assert LatencyHistogram().quantile(0.5) is None
    assert LatencyHistogram().count == 0


def test_negative_and_tiny_values_count_as_the_shortest():
    histogram = histogram_of([-5 * SECOND, 0, 3, 5000])
    assert histogram.count == 4
    shortest = histogram.quantile(0.75)
    assert shortest is not None and 0 <= shortest < MICROSECOND


def test_values_beyond_the_range_answer_with_the_maximum():
    histogram = histogram_of([MICROSECOND, 10**16, 3 * 10**16])
    assert histogram.quantile(0.99) == histogram.max_ns == 3 * 10**16


@given(st.lists(st.tuples(latencies, st.integers(0, 5)), max_size=30))
def test_adding_many_is_adding_each(pairs: list[tuple[int, int]]):
    at_once = LatencyHistogram()
    for value, n in pairs:
        at_once.add_many(value, n)
    one_by_one = histogram_of([value for value, n in pairs for _ in range(n)])
    assert at_once.to_list() == one_by_one.to_list()


@given(st.lists(latencies, max_size=50), st.lists(latencies, max_size=50))
def test_merging_is_adding_the_values_of_both(left: list[int], right: list[int]):
    merged = histogram_of(left)
    merged.merge(histogram_of(right))
    assert merged.to_list() == histogram_of(left + right).to_list()
    assert merged.count == len(left) + len(right)


@given(st.lists(st.integers(-1000, 10**14), max_size=50))
def test_a_histogram_comes_back_from_its_list(values: list[int]):
    histogram = histogram_of(values)
    again = LatencyHistogram.from_list(histogram.to_list())
    assert again.to_list() == histogram.to_list()
    assert (again.count, again.max_ns) == (histogram.count, histogram.max_ns)


def test_a_reset_forgets_everything():
    histogram = histogram_of([MICROSECOND, SECOND])
    histogram.reset()
    assert histogram.to_list() == LatencyHistogram().to_list()


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60),
)
def test_a_rolling_histogram_holds_the_last_window_and_nothing_older_than_two(steps: list[tuple[bool, int]]):
    rolling = RollingHistogram(10.0)
    rolling.merged(0.0)
    now, added_at = 0, []
    for adds, pause in steps:
        now += pause
        count = rolling.merged(now).count
        assert count >= sum(now - at < 10 for at in added_at)
        assert count <= sum(now - at <= 20 for at in added_at)
        if adds:
            rolling.add(MICROSECOND)
            added_at.append(now)


def test_a_rolling_histogram_answers_for_both_halves():
    rolling = RollingHistogram(10.0)
    rolling.merged(0.0)
    rolling.add_many(5_000, 3)
    assert rolling.max_ns(11.0) == 5_000
    rolling.add_many(1_000_000, 7)
    assert rolling.max_ns(12.0) == 1_000_000
    assert rolling.quantile(0.1, 12.0) == pytest.approx(5_000, rel=0.05)
    assert rolling.quantile(0.9, 12.0) == pytest.approx(1_000_000, rel=0.05)


def test_a_rolling_histogram_counts_up_to_bounds_all_that_ever_came():
    rolling = RollingHistogram(10.0)
    counts = []
    for now in range(0, 100, 4):
        rolling.add(MICROSECOND)
        rolling.add(SECOND)
        rolling.merged(float(now))
        counts.append(rolling.cumulative_counts([MICROSECOND // 2, 2 * MICROSECOND]))
    assert counts == [[0, n, 2 * n] for n in range(1, 26)]


def test_an_idle_rolling_histogram_has_no_figures():
    rolling = RollingHistogram(10.0)
    rolling.add(MICROSECOND)
    rolling.merged(0.0)
    for now in (11.0, 22.0):
        rolling.merged(now)
    assert rolling.quantile(0.5, 22.0) is None
    assert rolling.max_ns(22.0) is None


def test_values_are_kept_for_a_window_after_a_long_time_without_questions():
    rolling = RollingHistogram(10.0)
    rolling.merged(0.0)
    rolling.merged(1000.0)
    rolling.add(MICROSECOND)
    assert [rolling.merged(now).count for now in (1001.0, 1005.0, 1009.0)] == [1, 1, 1]
