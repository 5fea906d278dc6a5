"""The rolling window over the request weight, and what the exchange says about it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.binance.request_weight import SHARE, WINDOW_S, RequestWeight
from relay.binance.streams import Venue


@example([(5, 1.599505883848177), (100, 0.0), (100, 3.0), (100, 3.8690675553304095)], 4)
@given(
    st.lists(st.tuples(st.sampled_from([5, 20, 100]), st.floats(0, 20)), max_size=80),
    st.integers(1, 12),
)
def test_no_window_holds_more_than_the_share(asks: list[tuple[int, float]], streams: int) -> None:
    share = int(2400 * SHARE) // streams
    weight, now, spent = RequestWeight(Venue.USDM, streams), 0.0, list[tuple[float, int]]()
    for each, pause_s in asks:
        now += pause_s
        # Rounding may leave a last bit to wait for.
        for _ in range(2):
            now += weight.wait_s(each, now)
        assert weight.wait_s(each, now) == 0.0
        weight.spend(each, now)
        spent.append((now, each))
    for begin, _ in spent:
        assert sum(each for at, each in spent if begin <= at < begin + WINDOW_S) <= share


def test_a_call_above_the_share_goes_alone_and_waits_in_proportion() -> None:
    weight = RequestWeight(Venue.USDM, streams=12)
    assert weight.wait_s(200, 0.0) == 0.0
    weight.spend(200, 0.0)
    assert weight.wait_s(5, 0.0) == weight.wait_s(200, 0.0) == pytest.approx(120.0)


def test_the_exchanges_word_counts_whatever_is_left() -> None:
    weight = RequestWeight(Venue.SPOT, streams=1)
    weight.close_for(7.0, now=100.0)
    assert weight.wait_s(1, 100.0) == 7.0
    weight.close_for(2.0, now=100.0)
    assert weight.wait_s(1, 101.0) == 6.0, "the longer one holds"


def test_others_behind_the_same_address_are_left_their_half() -> None:
    weight = RequestWeight(Venue.SPOT, streams=1)
    weight.report_used(3000, now=0.0)
    assert weight.wait_s(4, 0.0) == 0.0
    weight.report_used(3001, now=0.0)
    assert weight.wait_s(4, 0.0) > 0.0
