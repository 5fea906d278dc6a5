"""What is asked of REST for a gap, and what its answers come to."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.binance.backfill import MAX_ROWS, MAX_STALLS, GapFill
from relay.binance.streams import StreamSpec, Venue, parse_stream
from relay.errors import UnfitAnswerError
from relay.model.gap import FillOutcome, FillRange, Gap, LossCause

SPOT, USDM = parse_stream(Venue.SPOT, "btcusdt@trade"), parse_stream(Venue.USDM, "btcusdt@trade")
AGG = parse_stream(Venue.USDM, "btcusdt@aggTrade")
SAMPLES = {
    SPOT: b'{"e":"trade","E":9,"s":"BTCUSDT","t":99,"p":"1.0","q":"2","T":8,"m":true,"M":true}',
    USDM: b'{"e":"trade","E":9,"T":8,"s":"BTCUSDT","t":99,"p":"1.0","q":"2","X":"ADL","m":true}',
    AGG: b'{"e":"aggTrade","E":9,"s":"BTCUSDT","a":99,"p":"1.0","q":"2","nq":"2","f":1,"l":2,"T":8,"m":true,'
    b'"st":1}',
}


def gap(first: int, last: int, spec: StreamSpec = SPOT) -> Gap:
    return Gap(
        first_id=first, last_id=last, cause=LossCause.DISCONNECT, from_ns=0, to_ns=1, sample=SAMPLES[spec]
    )


def fill(first: int, last: int, spec: StreamSpec = SPOT, *, has_key: bool = False) -> GapFill:
    return GapFill(spec, gap(first, last, spec), has_key=has_key)


def row(number: int, spec: StreamSpec = SPOT, **changes: Any) -> dict[str, Any]:
    if spec is AGG:
        fields = {"a": number, "p": "5.0", "q": "6", "f": 3, "l": 4, "T": 7, "m": False}
    else:
        fields = {"id": number, "price": "5.0", "qty": "6", "quoteQty": "30", "time": 7}
        fields |= {"isBuyerMaker": False}
    return fields | ({"isBestMatch": False} if spec is SPOT else {}) | changes


def runs(ranges: list[FillRange]) -> list[tuple[int, int, FillOutcome]]:
    return [(each.first_id, each.last_id, each.outcome) for each in ranges]


def test_each_venue_is_asked_by_its_own_call_with_its_weight() -> None:
    asked = fill(11, 20).query()
    assert (asked.path, asked.weight, asked.with_key) == ("/api/v3/historicalTrades", 25, False)
    assert asked.parameters == {"symbol": "BTCUSDT", "limit": "1000", "fromId": "10"}
    asked = fill(11, 20, AGG).query()
    assert (asked.path, asked.weight, asked.with_key) == ("/fapi/v1/aggTrades", 20, False)
    asked = fill(11, 20, USDM).query()
    assert (asked.path, asked.weight, asked.with_key) == ("/fapi/v1/trades", 5, False)
    assert "fromId" not in asked.parameters


def test_rows_become_events_in_the_streams_own_form() -> None:
    (each,) = fill(11, 11).answered([row(10), row(11)])
    assert each.payloads == [
        b'{"e":"trade","E":7,"s":"BTCUSDT","t":11,"p":"5.0","q":"6","T":7,"m":false,"M":false}'
    ]
    (each,) = fill(11, 11, USDM).answered([row(10, USDM), row(11, USDM)])
    assert each.payloads == [
        b'{"e":"trade","E":7,"T":7,"s":"BTCUSDT","t":11,"p":"5.0","q":"6","X":"MARKET","m":false}'
    ]


def test_a_field_that_rest_does_not_tell_is_left_out() -> None:
    (each,) = fill(11, 11, AGG).answered([row(11, AGG)])
    assert b'"nq"' not in each.payloads[0]
    assert each.payloads[0].endswith(b'"T":7,"m":false,"st":1}')
    (each,) = fill(11, 11, AGG).answered([row(11, AGG, nq="1")])
    assert b'"q":"6","nq":"1","f":3' in each.payloads[0]


def test_futures_ids_between_two_that_rest_lists_never_were() -> None:
    work = fill(11, 20, USDM)
    ranges = work.answered([row(10, USDM), row(11, USDM), row(14, USDM), row(25, USDM)])
    assert runs(ranges) == [
        (11, 11, FillOutcome.FOUND),
        (12, 13, FillOutcome.ABSENT),
        (14, 14, FillOutcome.FOUND),
        (15, 20, FillOutcome.ABSENT),
    ]
    assert work.done


def test_spot_numbers_without_a_gap_so_what_is_not_listed_is_out_of_reach() -> None:
    assert runs(fill(11, 13).answered([row(10), row(12), row(13)])) == [
        (11, 11, FillOutcome.UNREACHED), (12, 13, FillOutcome.FOUND)
    ]  # fmt: skip


def test_an_answer_that_begins_too_late_proves_nothing_of_what_is_before_it() -> None:
    work = fill(11, 20, AGG)
    assert runs(work.answered([row(15, AGG), row(17, AGG), row(21, AGG)])) == [
        (11, 14, FillOutcome.UNREACHED),
        (15, 15, FillOutcome.FOUND),
        (16, 16, FillOutcome.ABSENT),
        (17, 17, FillOutcome.FOUND),
        (18, 20, FillOutcome.ABSENT),
    ]
    assert "does not have" in work.shortage


def test_futures_trades_beyond_the_newest_thousand_need_a_key() -> None:
    late = [row(number, USDM) for number in range(18, 30)]
    without = fill(11, 20, USDM)
    assert runs(without.answered(late)) == [(11, 17, FillOutcome.UNREACHED), (18, 20, FillOutcome.FOUND)]
    assert "api_key_file" in without.shortage
    with_key = fill(11, 20, USDM, has_key=True)
    assert with_key.answered(late) == []
    asked = with_key.query()
    assert (asked.path, asked.weight, asked.with_key) == ("/fapi/v1/historicalTrades", 200, True)
    assert asked.parameters["fromId"] == "10"


def test_with_a_key_a_gap_that_is_too_wide_for_the_newest_is_asked_for_by_id_at_once() -> None:
    assert fill(11, 10 + MAX_ROWS - 1, USDM, has_key=True).query().path == "/fapi/v1/trades"
    assert fill(11, 10 + MAX_ROWS, USDM, has_key=True).query().path == "/fapi/v1/historicalTrades"
    assert fill(11, 10 + MAX_ROWS, USDM).query().path == "/fapi/v1/trades"


def test_answers_without_the_next_id_are_not_repeated_for_ever() -> None:
    work = fill(11, 20)
    for _ in range(MAX_STALLS):
        assert not work.stalled
        assert work.answered([row(10)]) == []
    assert work.stalled
    work.answered([row(10), row(11)])
    assert not work.stalled


UNFIT = {
    "no list": {"code": -1},
    "no objects": ["x"],
    "no id": [{"price": "1"}],
    "falling ids": [row(11), row(11)],
    "an absurd id": [row(2**63)],
    "no price": [row(11, price=None)],
    "no time": [row(11, time="7")],
    "no side": [row(11, isBuyerMaker=1)],
}


@pytest.mark.parametrize("answer", UNFIT.values(), ids=UNFIT)
def test_an_answer_that_is_none_is_refused(answer: object) -> None:
    with pytest.raises(UnfitAnswerError):
        fill(11, 11).answered(answer)


@given(
    spec=st.sampled_from([SPOT, USDM, AGG]),
    listed=st.sets(st.integers(1, 80), max_size=80),
    first=st.integers(2, 60),
    size=st.integers(1, 20),
    limit=st.integers(1, 30),
    has_key=st.booleans(),
    grows=st.integers(0, 3),
)
def test_every_id_gets_one_fate_and_all_that_rest_lists_in_reach_is_found(
    spec: StreamSpec, listed: set[int], first: int, size: int, limit: int, has_key: bool, grows: int
) -> None:
    last = first + size - 1
    every = sorted(listed | {first - 1, last + 1})
    # REST lags: it lists the newest ids one answer after the other.
    visible = len(every) - grows
    work = fill(first, last, spec, has_key=has_key)
    ranges: list[FillRange] = []
    reachable = set(every)
    while not (work.done or work.stalled):
        query, shown = work.query(), every[: max(0, visible)]
        visible = min(len(every), visible + 1)
        begin = int(query.parameters.get("fromId", 0))
        rows = [each for each in shown if each >= begin][:limit] if begin else shown[-limit:]
        if not query.with_key and not begin and not has_key and rows:
            reachable -= {each for each in every if work.next_id <= each < rows[0]}
        ranges += work.answered([row(each, spec) for each in rows])
    covered = [each for each in ranges for each in range(each.first_id, each.last_id + 1)]
    assert covered == list(range(first, work.next_id)), "in order, each once"
    found = {
        orjson.loads(payload)["a" if spec is AGG else "t"] for each in ranges for payload in each.payloads
    }
    assert found == {each for each in reachable if first <= each < work.next_id}
    absent = {e for p in ranges if p.outcome is FillOutcome.ABSENT for e in range(p.first_id, p.last_id + 1)}
    assert not absent & listed
    if limit > 1:
        assert work.done


def test_a_page_is_as_long_as_binance_allows() -> None:
    assert fill(1, 10**6).query().parameters["limit"] == str(MAX_ROWS) == "1000"
