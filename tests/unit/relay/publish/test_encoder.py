"""The protocol bytes of one stream's records, read back the way a server reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.binance.streams import Venue, parse_stream
from relay.model.record_batch import NO_EVENT_ID, RecordBatch, RecordKind
from relay.publish.chain import Chain
from relay.publish.encoder import MessageEncoder, Route, payload_bytes

SPEC = parse_stream(Venue.USDM, "btcusdt@trade")
ROUTE = Route("binance.usdm.btcusdt.trade", "binance.usdm.btcusdt.trade.repair", "r.", True, 1 << 20)
EPOCH, RECV_NS = 1_700_000_000_000, 1_767_225_600_123_456_789


class Message(NamedTuple):
    verb: str
    subject: str
    reply: str
    headers: dict[str, str]
    body: bytes


def read(data: bytes) -> list[Message]:
    """As the sizes in each line say; whatever is left over or cut short fails."""
    found = []
    while data:
        line, _, data = data.partition(b"\r\n")
        verb, subject, *reply = line.decode().split()
        sizes = [int(reply.pop()) for _ in range(2 if verb == "HPUB" else 1)]
        head_bytes = sizes[-1] if verb == "HPUB" else 0
        block, body = data[:head_bytes], data[head_bytes : sizes[0]]
        assert data[sizes[0] : sizes[0] + 2] == b"\r\n"
        assert not block or (block.startswith(b"NATS/1.0\r\n") and block.endswith(b"\r\n\r\n"))
        lines = [each.split(": ") for each in block.decode().split("\r\n")[1:] if each]
        found.append(Message(verb, subject, "".join(reply), dict(lines), body))
        data = data[sizes[0] + 2 :]
    return found


def batch(count: int, kind: RecordKind = RecordKind.EVENT, *, ids: bool = True, seq: int = 33) -> RecordBatch:
    event_ids = [7 + n if ids else NO_EVENT_ID for n in range(count)]
    return RecordBatch(kind, 40, EPOCH, seq, RECV_NS, event_ids, [b'{"n":%d}' % n for n in range(count)])


def events(
    some: RecordBatch,
    chain: Chain,
    *,
    first: int = 0,
    stop: int = 0,
    reply: bytes = b"r.5",
    route: Route = ROUTE,
) -> list[Message]:
    out: list[bytes] = []
    MessageEncoder(SPEC, route).events(some, first, stop or len(some), chain, reply, out)
    return read(b"".join(out))


def chain_at(place: int, last_id: bytes = b"") -> Chain:
    chain = Chain(100, 1 << 20)
    chain.expect(place, last_id)
    return chain


def test_each_event_names_the_one_before_it_and_its_place() -> None:
    chain = chain_at(40)
    first, second, third = events(batch(3), chain)
    assert first.headers == {
        "Nats-Msg-Id": "usdm:btcusdt@trade:7",
        "Nats-Expected-Last-Sequence": "40",
        "Sluice-Seq": "33",
        "Sluice-Epoch": str(EPOCH),
        "Sluice-Recv-Ns": str(RECV_NS),
    }
    assert second.headers["Nats-Expected-Last-Msg-Id"] == "usdm:btcusdt@trade:7"
    assert second.headers["Nats-Expected-Last-Sequence"] == "41"
    assert third.headers["Nats-Expected-Last-Msg-Id"] == "usdm:btcusdt@trade:8"
    assert third.headers["Sluice-Seq"] == "35"
    assert (chain.last_id, chain.expected_sequence) == (b"usdm:btcusdt@trade:9", 43)


def test_the_first_may_name_the_last_one_of_an_earlier_session() -> None:
    (only,) = events(batch(1), chain_at(4, b"usdm:btcusdt@trade:6"))
    assert only.headers["Nats-Expected-Last-Msg-Id"] == "usdm:btcusdt@trade:6"
    assert only.headers["Nats-Expected-Last-Sequence"] == "4"


def test_the_last_of_those_that_go_together_asks_for_an_answer() -> None:
    messages = events(batch(3), chain_at(0))
    assert [message.reply for message in messages] == ["", "", "r.5"]
    assert {message.subject for message in messages} == {ROUTE.subject}


def test_a_part_of_a_batch_keeps_its_numbers() -> None:
    chain = chain_at(0)
    (only,) = events(batch(5), chain, first=2, stop=3)
    assert only.headers["Nats-Msg-Id"] == "usdm:btcusdt@trade:9"
    assert only.headers["Sluice-Seq"] == "35"
    assert json.loads(only.body)["data"] == {"n": 2}


def test_without_a_chain_nothing_is_expected_and_nobody_answers() -> None:
    messages = events(batch(2), Chain(100, 1 << 20), reply=b"")
    assert all("Nats-Expected-Last-Sequence" not in message.headers for message in messages)
    assert [message.reply for message in messages] == ["", ""]


def test_core_delivery_may_go_without_headers() -> None:
    bare = replace(ROUTE, with_headers=False)
    messages = events(batch(2), Chain(100, 1 << 20), reply=b"", route=bare)
    assert [(message.verb, message.headers) for message in messages] == [("PUB", {})] * 2
    assert json.loads(messages[0].body)["message_id"] == "usdm:btcusdt@trade:7"


def test_the_body_is_the_envelope_around_the_untouched_payload() -> None:
    (only,) = events(batch(1), chain_at(0))
    assert only.body == (
        b'{"stream":"btcusdt@trade","data":{"n":0},"timestamp":"2026-01-01T00:00:00.123456Z",'
        b'"message_id":"usdm:btcusdt@trade:7","source":"binance-websocket","version":"1.0"}'
    )


def test_events_that_rest_gave_are_marked() -> None:
    (healed,) = events(batch(1, RecordKind.HEALED), chain_at(0))
    assert healed.headers["Sluice-Healed"] == "1"


@pytest.mark.parametrize(
    ("kind", "subject", "identity"),
    [
        (RecordKind.LOSS, "sluice.loss.usdm.btcusdt.trade", f"usdm:btcusdt@trade:loss:{EPOCH}-40"),
        (
            RecordKind.REJECTED,
            "sluice.rejected.usdm.btcusdt.trade",
            f"usdm:btcusdt@trade:rejected:{EPOCH}-40",
        ),
        (RecordKind.REPAIR, "binance.usdm.btcusdt.trade.repair", "usdm:btcusdt@trade:7"),
    ],
)
def test_side_records_have_subjects_of_their_own_and_stay_out_of_the_chain(
    kind: RecordKind, subject: str, identity: str
) -> None:
    out: list[bytes] = []
    MessageEncoder(SPEC, ROUTE).side(batch(1, kind), b"r.9", out)
    (message,) = read(b"".join(out))
    assert (message.subject, message.reply, message.headers["Nats-Msg-Id"]) == (subject, "r.9", identity)
    assert "Nats-Expected-Last-Sequence" not in message.headers
    told = json.loads(message.body)
    assert (told["data"] if kind is RecordKind.REPAIR else told) == {"n": 0}
    assert ("Sluice-Healed" in message.headers) is (kind is RecordKind.REPAIR)


def test_a_name_beyond_ascii_is_counted_in_bytes() -> None:
    spec = parse_stream(Venue.USDM, "币安人生usdt@trade")
    out: list[bytes] = []
    MessageEncoder(spec, replace(ROUTE, subject=spec.subject("b.{symbol}"))).events(
        batch(2), 0, 2, chain_at(0), b"r.1", out
    )
    first, _ = read(b"".join(out))
    assert json.loads(first.body)["stream"] == "币安人生usdt@trade"


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=20), st.booleans(), st.booleans())
def test_whole_messages_come_out_whatever_the_payloads_hold(
    payloads: list[bytes], ids: bool, chained: bool
) -> None:
    some = replace(batch(len(payloads), ids=ids), payloads=payloads)
    out: list[bytes] = []
    chain = chain_at(0) if chained else Chain(100, 1 << 20)
    MessageEncoder(SPEC, ROUTE).events(some, 0, len(some), chain, b"r.1", out)
    assert len(out) == len(payloads)
    messages = read(b"".join(out))
    assert all(payload in message.body for payload, message in zip(payloads, messages, strict=True))
    assert [payload_bytes(one) for one in out] == [int(one.partition(b"\r\n")[0].split()[-1]) for one in out]
