from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.primitives.rate_limit import ReservingLimiter, SlidingWindowLimiter


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
