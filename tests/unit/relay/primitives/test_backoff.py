from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.primitives.backoff import FIRST_RETRY_S, Backoff

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
