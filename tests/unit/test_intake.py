"""What becomes of the frames of one stream: numbers, repeats, losses, rejections."""

from __future__ import annotations

import orjson

from relay.config import Overflow
from relay.intake import Intake
from relay.record import NO_EVENT_ID, Kind, Record, decode
from relay.streams import Venue, parse_stream
from relay.window import Window

SECOND = 1_000_000_000


def intake(name: str = "btcusdt@trade", **known: int) -> tuple[Intake, Window]:
    window = Window(max_messages=100, max_bytes=1 << 20, overflow=Overflow.SPILL)
    return Intake(parse_stream(Venue.USDM, name), window, epoch=5, **known), window


def trade(number: int, symbol: str = "BTCUSDT") -> bytes:
    fields = {"e": "trade", "E": 1, "T": 1, "s": symbol, "t": number, "p": "1.0", "q": "2", "X": "MARKET"}
    return orjson.dumps(fields | {"m": True})


def ticker() -> bytes:
    return orjson.dumps({"e": "24hrTicker", "E": 1, "s": "BTCUSDT"})


def records(journal: bytes) -> list[Record]:
    found, at = [], 0
    while at < len(journal):
        record, at = decode(journal, at, check=True)
        found.append(record)
    return found


def losses(journal: bytes) -> list[dict[str, object]]:
    return [orjson.loads(each.payload) for each in records(journal) if each.kind == Kind.LOSS]


def test_events_are_numbered_and_keep_their_bytes() -> None:
    subject, window = intake(last_offset=41)
    taken = subject.take([trade(7), trade(8)], 3 * SECOND)
    first, second = records(taken.journal)
    assert (first.offset, first.epoch, first.seq, first.recv_ns, first.event_id) == (42, 5, 1, 3 * SECOND, 7)
    assert (second.offset, second.seq, second.payload) == (43, 2, trade(8))
    assert (taken.accepted, taken.last_offset, window.queued) == (2, 43, 2)


def test_an_id_seen_before_is_counted_as_a_repeat_and_goes_nowhere() -> None:
    subject, window = intake()
    subject.take([trade(7), trade(8), trade(9)], SECOND)
    taken = subject.take([trade(8), trade(9), trade(10)], SECOND)
    assert [record.event_id for record in records(taken.journal)] == [10]
    assert window.books.repeated == 2
    assert window.books.received == 4


def test_a_hole_in_trade_ids_is_written_down_before_the_event_that_shows_it() -> None:
    subject, _ = intake()
    subject.take([trade(7)], SECOND)
    taken = subject.take([trade(11)], 2 * SECOND)
    assert [record.kind for record in records(taken.journal)] == [Kind.LOSS, Kind.EVENT]
    (loss,) = losses(taken.journal)
    assert (loss["first_id"], loss["last_id"], loss["count"], loss["cause"]) == (8, 10, 3, "upstream")
    assert subject.lost == 3


def test_a_hole_after_a_disconnection_names_it_as_the_cause() -> None:
    subject, _ = intake()
    subject.take([trade(7)], SECOND)
    subject.disconnected()
    (loss,) = losses(subject.take([trade(9)], 2 * SECOND).journal)
    assert (loss["cause"], loss["count"], loss["from"]) == ("disconnect", 1, "1970-01-01T00:00:01.000Z")


def test_a_disconnection_without_a_hole_in_ids_lost_nothing() -> None:
    subject, _ = intake()
    subject.take([trade(7)], SECOND)
    subject.disconnected()
    assert losses(subject.take([trade(8)], 2 * SECOND).journal) == []


def test_a_stream_without_ids_announces_every_spell_of_darkness() -> None:
    subject, _ = intake("btcusdt@ticker")
    subject.take([ticker()], SECOND)
    subject.disconnected()
    (loss,) = losses(subject.take([ticker()], 4 * SECOND).journal)
    assert (loss["first_id"], loss["count"], loss["cause"]) == (None, None, "disconnect")
    assert losses(subject.take([ticker()], 5 * SECOND).journal) == []


def test_a_new_incarnation_announces_the_hole_behind_the_last_one() -> None:
    subject, _ = intake(last_offset=9, last_event_id=100)
    (loss,) = losses(subject.take([trade(104)], SECOND).journal)
    assert (loss["first_id"], loss["last_id"], loss["cause"]) == (101, 103, "disconnect")


def test_depth_updates_are_chained_by_pu_and_their_hole_has_no_count() -> None:
    subject, _ = intake("btcusdt@depth@100ms")

    def depth(first: int, last: int, previous: int) -> bytes:
        fields = {"e": "depthUpdate", "s": "BTCUSDT", "U": first, "u": last, "pu": previous, "b": [], "a": []}
        return orjson.dumps(fields)

    subject.take([depth(1, 10, 0), depth(15, 20, 10)], SECOND)
    (loss,) = losses(subject.take([depth(40, 45, 30)], SECOND).journal)
    assert (loss["first_id"], loss["last_id"], loss["count"]) == (21, 30, None)
    assert subject.lost == 0


def test_a_frame_of_another_stream_is_rejected_with_its_bytes_and_a_reason() -> None:
    subject, window = intake()
    (record,) = records(subject.take([trade(7, "ETHUSDT")], SECOND).journal)
    report = orjson.loads(record.payload)
    assert record.kind == Kind.REJECTED
    assert report["raw"].encode() == trade(7, "ETHUSDT")
    assert "ETHUSDT" in report["reason"]
    assert (window.books.received, window.books.rejected, window.queued) == (1, 1, 0)


def test_control_answers_are_no_events() -> None:
    subject, window = intake()
    taken = subject.take([b'{"result":null,"id":1}', b'{"e":"serverShutdown","E":1}'], SECOND)
    assert taken.shutdown
    assert (taken.journal, taken.accepted, window.books.received) == (b"", 0, 0)


def test_an_id_below_everything_seen_is_a_new_event() -> None:
    """A reset of ids by the exchange must not silence the stream."""
    subject, window = intake()
    subject.take([trade(500), trade(501)], SECOND)
    taken = subject.take([trade(1), trade(2)], SECOND)
    assert [record.event_id for record in records(taken.journal)] == [1, 2]
    assert window.books.repeated == 0
    assert NO_EVENT_ID not in [record.event_id for record in records(taken.journal)]


def test_the_stored_end_of_the_last_incarnation_shows_the_hole_before_the_first_event() -> None:
    subject, _ = intake()
    assert subject.preceded_by(100, 7 * SECOND).journal == b""
    (loss,) = losses(subject.take([trade(104)], 9 * SECOND).journal)
    assert (loss["first_id"], loss["last_id"], loss["cause"]) == (101, 103, "disconnect")
    assert loss["from"] == "1970-01-01T00:00:07.000Z"


def test_the_stored_end_of_the_last_incarnation_may_come_after_the_first_event() -> None:
    subject, _ = intake()
    subject.take([trade(104), trade(105)], 9 * SECOND)
    (loss,) = losses(subject.preceded_by(100, 7 * SECOND).journal)
    assert (loss["first_id"], loss["last_id"], loss["count"]) == (101, 103, 3)
    assert losses(subject.preceded_by(100, 7 * SECOND).journal) == [], "announced once"


def test_a_stream_without_ids_announces_the_time_between_two_incarnations() -> None:
    subject, _ = intake("btcusdt@ticker")
    subject.take([ticker()], 9 * SECOND)
    (loss,) = losses(subject.preceded_by(NO_EVENT_ID, 7 * SECOND).journal)
    assert (loss["first_id"], loss["from"], loss["to"]) == (
        None,
        "1970-01-01T00:00:07.000Z",
        "1970-01-01T00:00:09.000Z",
    )


def test_nothing_is_announced_when_the_ids_go_on_where_the_last_incarnation_ended() -> None:
    subject, _ = intake()
    subject.take([trade(101)], 9 * SECOND)
    assert losses(subject.preceded_by(100, 7 * SECOND).journal) == []
    assert subject.lost == 0
