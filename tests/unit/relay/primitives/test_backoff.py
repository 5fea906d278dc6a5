from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.primitives.backoff import FIRST_RETRY_S, Backoff
from relay.primitives.rate_limit import ReservingLimiter, SlidingWindowLimiter

seeds = st.integers(0, 2**32)


class Highest(Random):
    """Always draws the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


@given(st.floats(0.01, 0.5), st.floats(0.5, 600.0), seeds)
def test_every_delay_stays_below_its_doubling_ceiling(base_s: float, cap_s: float, seed: int):
    backoff = Backoff(base_s, cap_s, Random(seed))
    for n in range(50):
        assert 0 <= backoff.next_s() <= min(cap_s, base_s * 2**n)


def test_the_ceiling_doubles_up_to_the_cap():
    backoff = Backoff(0.5, 10.0, Highest())
    assert [backoff.next_s() for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_delays_use_the_whole_range_below_the_ceiling():
    """Full jitter: a third of the delays in each third."""
    delays = []
    for seed in range(3000):
        backoff = Backoff(0.3, 60.0, Random(seed))
        delays.append(backoff.next_s())
    thirds = [sum(low <= delay < low + 0.1 for delay in delays) for low in (0.0, 0.1, 0.2)]
    assert all(900 < count < 1100 for count in thirds)


def test_it_goes_on_for_ever():
    backoff = Backoff(0.1, 30.0, Highest())
    assert {backoff.next_s() for _ in range(5000)} >= {0.1, 30.0}
    assert backoff.next_s() == 30.0


@pytest.mark.parametrize(("base_s", "cap_s"), [(5.0, 30.0), (0.2, 0.1)])
def test_the_first_retry_is_quick_whatever_is_configured(base_s: float, cap_s: float):
    assert Backoff(base_s, cap_s, Highest()).next_s() == min(FIRST_RETRY_S, cap_s)


def test_a_reset_begins_anew():
    backoff = Backoff(0.5, 10.0, Highest())
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 0.5


@given(
    st.integers(1, 5),
    st.integers(1, 100),
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
)
def test_no_window_ever_holds_more_attempts_than_allowed(attempts: int, window_s: int, pauses: list[int]):
    budget = ReservingLimiter(attempts, window_s)
    now, granted = 0, []
    for pause in pauses:
        now += pause
        wait_s = budget.reserve(now)
        assert wait_s >= 0
        granted.append(now + wait_s)
    assert all(first <= second for first, second in pairwise(granted))
    later = granted[attempts:]
    assert all(second - first >= window_s for first, second in zip(granted, later, strict=False))


@given(st.integers(1, 5), st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_nobody_waits_longer_than_the_budget_demands(attempts: int, pauses: list[int]):
    """Each attempt comes at once, or exactly one window after the one that it has to wait for."""
    budget = ReservingLimiter(attempts, 50)
    now, granted = 0, []
    for pause in pauses:
        now += pause
        at = now + budget.reserve(now)
        assert at == now or at == granted[-attempts] + 50
        granted.append(at)


def test_a_budget_that_is_used_up_delays_by_the_rest_of_the_window():
    budget = ReservingLimiter(2, 300.0)
    assert [budget.reserve(now) for now in (0.0, 10.0, 20.0, 20.0, 700.0)] == [0, 0, 280, 290, 0]


def test_a_clock_that_steps_back_gives_nothing_away():
    budget = ReservingLimiter(2, 300.0)
    budget.reserve(100.0)
    assert budget.reserve(50.0) == 50.0
    assert budget.reserve(100.0) == 300.0


@given(st.integers(1, 5), st.lists(st.integers(0, 40), min_size=1, max_size=60))
def test_an_allowance_grants_all_that_its_window_has_room_for_and_no_more(count: int, pauses: list[int]):
    allowance, now, taken = SlidingWindowLimiter(count, 50), 0, []
    for pause in pauses:
        now += pause
        room = sum(at > now - 50 for at in taken) < count
        assert allowance.try_acquire(now) is room
        taken += [now] if room else []
