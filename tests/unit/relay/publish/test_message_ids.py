from __future__ import annotations

import pytest

from relay.binance.streams import Venue, parse_stream
from relay.model.record_batch import NO_EVENT_ID, RecordBatch, RecordKind
from relay.publish.message_ids import fence_id, message_ids, natural_id

TRADES, TICKERS = (parse_stream(Venue.USDM, name) for name in ("btcusdt@trade", "btcusdt@ticker"))


def batch(kind: RecordKind = RecordKind.EVENT, first_id: int = NO_EVENT_ID, records: int = 1) -> RecordBatch:
    ids = [first_id + n if first_id != NO_EVENT_ID else first_id for n in range(records)]
    return RecordBatch(kind, offset=70, epoch=5, seq=9, recv_ns=1, event_ids=ids, payloads=[b"{}"] * records)


def test_ids_of_events_are_the_same_from_every_socket_where_the_exchange_numbers_them() -> None:
    trades = message_ids(b"usdm:btcusdt@trade", batch(first_id=42, records=3), 1, 3)
    assert trades == [b"usdm:btcusdt@trade:43", b"usdm:btcusdt@trade:44"]
    tickers = message_ids(b"usdm:btcusdt@ticker", batch(records=3), 0, 2)
    assert tickers == [b"usdm:btcusdt@ticker:5-9", b"usdm:btcusdt@ticker:5-10"]


def test_side_records_have_ids_apart_from_events_and_from_each_other() -> None:
    ids = {name for kind in RecordKind for name in message_ids(b"usdm:btcusdt@ticker", batch(kind), 0, 1)}
    assert ids == {
        b"usdm:btcusdt@ticker:5-9",
        b"usdm:btcusdt@ticker:rejected:5-70",
        b"usdm:btcusdt@ticker:loss:5-70",
    }


def test_the_id_of_a_fence_names_its_incarnation() -> None:
    assert fence_id(TRADES, 5) == "fence:usdm:btcusdt@trade:5"


def test_the_exchanges_id_is_read_back_from_the_id_of_its_message() -> None:
    (made,) = message_ids(b"usdm:btcusdt@trade", batch(first_id=42), 0, 1)
    assert natural_id(TRADES, made.decode()) == 42


@pytest.mark.parametrize("message", ["usdm:btcusdt@trade:5-9", "usdm:ethusdt@trade:42", "loss:1-2", ""])
def test_no_other_id_has_a_natural_one(message: str) -> None:
    assert natural_id(TRADES, message) == NO_EVENT_ID


def test_a_stream_that_the_exchange_does_not_number_has_none() -> None:
    assert natural_id(TICKERS, "usdm:btcusdt@ticker:42") == NO_EVENT_ID
