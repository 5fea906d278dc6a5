"""When a stream that is behind lets its socket fill, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.feed.read_coalescing import BEHIND_S, ENOUGH, LEAST_S, MOST_S, PART_OF_LAG, TOLD_WITHIN_S, lull_s


@pytest.mark.parametrize(
    ("events", "backlog", "waited_s"),
    [
        pytest.param(1, 0, 0.0, id="nothing waits"),
        pytest.param(1, 60, TOLD_WITHIN_S + BEHIND_S / 2, id="it keeps up"),
        pytest.param(1, 100, 1.0, id="a calm stream has nothing to gather"),
        pytest.param(1, 80_000, 1.0, id="a flooded one has much at once anyway"),
        pytest.param(ENOUGH, 2500, 1.0, id="the read brought many"),
    ],
)
def test_reading_goes_on(events: int, backlog: int, waited_s: float) -> None:
    assert lull_s(events, backlog, waited_s) == 0.0


def test_a_stream_that_is_behind_waits_for_a_batch() -> None:
    assert lull_s(1, 2500, 1.0) == pytest.approx(ENOUGH / 2500)


def test_little_is_added_to_a_small_lag() -> None:
    lag_s = 2 * BEHIND_S
    waited_s = TOLD_WITHIN_S + lag_s
    assert lull_s(1, round(2500 * waited_s), waited_s) == pytest.approx(lag_s * PART_OF_LAG)


@given(st.integers(1, 128), st.integers(0, 10**7), st.floats(0.0, 3600.0))
def test_a_lull_is_short_beside_the_lag_and_gathers_no_more_than_a_batch(
    events: int, backlog: int, waited_s: float
) -> None:
    found_s = lull_s(events, backlog, waited_s)
    assert 0.0 <= found_s <= min(MOST_S, max(0.0, waited_s * PART_OF_LAG))
    if found_s:
        rate_per_s = backlog / waited_s
        assert found_s * rate_per_s <= ENOUGH * 1.001
        assert ENOUGH / MOST_S * 0.999 <= rate_per_s <= ENOUGH / LEAST_S * 1.001
