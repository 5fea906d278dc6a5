"""When a stream that is behind lets its socket fill, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.feed.read_coalescing import (
    ACK_BATCHING_S,
    MAX_FILL_S,
    MAX_SHARE_OF_LAG,
    MIN_FILL_S,
    MIN_LAG_S,
    TARGET_READ_EVENTS,
    read_pause_s,
)


@pytest.mark.parametrize(
    ("events", "backlog", "waited_s"),
    [
        pytest.param(1, 0, 0.0, id="nothing waits"),
        pytest.param(1, 60, ACK_BATCHING_S + MIN_LAG_S / 2, id="it keeps up"),
        pytest.param(1, 100, 1.0, id="a calm stream has nothing to gather"),
        pytest.param(1, 80_000, 1.0, id="a flooded one has much at once anyway"),
        pytest.param(TARGET_READ_EVENTS, 2500, 1.0, id="the read brought many"),
    ],
)
def test_reading_goes_on(events: int, backlog: int, waited_s: float) -> None:
    assert read_pause_s(events, backlog, waited_s) == 0.0


def test_a_stream_that_is_behind_waits_for_a_batch() -> None:
    assert read_pause_s(1, 2500, 1.0) == pytest.approx(TARGET_READ_EVENTS / 2500)


def test_little_is_added_to_a_small_lag() -> None:
    lag_s = 2 * MIN_LAG_S
    waited_s = ACK_BATCHING_S + lag_s
    assert read_pause_s(1, round(2500 * waited_s), waited_s) == pytest.approx(lag_s * MAX_SHARE_OF_LAG)


@given(st.integers(1, 128), st.integers(0, 10**7), st.floats(0.0, 3600.0))
def test_a_lull_is_short_beside_the_lag_and_gathers_no_more_than_a_batch(
    events: int, backlog: int, waited_s: float
) -> None:
    found_s = read_pause_s(events, backlog, waited_s)
    assert 0.0 <= found_s <= min(MAX_FILL_S, max(0.0, waited_s * MAX_SHARE_OF_LAG))
    if found_s:
        rate_per_s = backlog / waited_s
        assert found_s * rate_per_s <= TARGET_READ_EVENTS * 1.001
        assert (
            TARGET_READ_EVENTS / MAX_FILL_S * 0.999 <= rate_per_s <= TARGET_READ_EVENTS / MIN_FILL_S * 1.001
        )
