"""The link's codec: what one side writes the other side reads, and nothing else is believed."""

import json
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import wire
from relay.errors import LinkError
from relay.record import DamagedRecordError, Kind, Record, encode

SECRET = b"s" * 32
NONCE = b"n" * wire.NONCE_BYTES
HELLO = wire.Hello(stream="usdm:btcusdt@trade", epoch=1_700_000_000_000, tip="usdm:btcusdt@trade:7")

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
records = st.builds(
    Record,
    st.sampled_from(list(Kind)),
    u64,
    u64,
    u64,
    u64,
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=300),
)
downs = st.one_of(
    st.builds(wire.Resume, u32, u64, u64, u32, u32, st.integers(-1, 2**63 - 1), u64, u64),
    st.builds(wire.Ack, u32, st.lists(st.tuples(u64, u32), max_size=5).map(tuple)),
    st.builds(wire.Fenced, u64),
    st.builds(wire.Alive, st.booleans()),
    st.builds(wire.Refused, u32, u64, st.text(st.characters(codec="ascii"), max_size=200)),
)


def written(message: object) -> bytes:
    match message:
        case wire.Resume():
            return wire.resume(message)
        case wire.Ack():
            return wire.ack(message.session, message.marks)
        case wire.Fenced():
            return wire.fenced(message.epoch)
        case wire.Alive():
            return wire.alive(message.connected)
        case wire.Refused():
            return wire.refused(message)
    raise TypeError(message)


def only(data: bytes) -> tuple[int, bytes]:
    (message,) = wire.Splitter(wire.MAX_MESSAGE_BYTES).feed(data)
    return message


def encoded(record: Record) -> bytes:
    return encode(
        record.kind,
        record.offset,
        record.epoch,
        record.seq,
        record.recv_ns,
        record.event_id,
        record.payload,
    )


@given(downs)
def test_what_a_publisher_says_arrives(message: object) -> None:
    assert wire.read_down(*only(written(message))) == message


@given(u32, st.lists(records, max_size=8))
def test_a_batch_arrives_whole_and_in_order(session: int, sent: list[Record]) -> None:
    kind, body = only(wire.batch(session, len(sent), b"".join(map(encoded, sent))))
    assert kind == wire.BATCH
    assert wire.read_batch(body) == (session, sent)


@given(st.lists(downs, min_size=1, max_size=10), st.lists(st.integers(1, 40), min_size=1))
def test_messages_are_found_however_the_bytes_are_cut(messages: list[object], cuts: list[int]) -> None:
    data = b"".join(map(written, messages))
    splitter = wire.Splitter(wire.MAX_MESSAGE_BYTES)
    read = []
    while data:
        size = cuts[len(data) % len(cuts)]
        read += list(splitter.feed(data[:size]))
        data = data[size:]
    assert [wire.read_down(*message) for message in read] == messages


def test_a_hello_with_the_secret_is_accepted() -> None:
    kind, body = only(wire.hello(HELLO, SECRET, NONCE))
    assert kind == wire.HELLO
    assert wire.read_hello(body, SECRET, NONCE) == HELLO


def test_a_hello_fits_its_limit() -> None:
    stream = "usdm:" + "币" * 60 + "@trade"
    long = wire.Hello(stream=stream, epoch=2**63, tip=f"{stream}:{2**63}")
    assert len(wire.hello(long, SECRET, NONCE)) < wire.MAX_HELLO_BYTES


@pytest.mark.parametrize(("secret", "nonce"), [(b"other" * 8, NONCE), (SECRET, b"o" * 32)])
def test_a_hello_without_the_secret_or_for_another_connection_is_refused(secret: bytes, nonce: bytes) -> None:
    _, body = only(wire.hello(HELLO, secret, nonce))
    with pytest.raises(LinkError, match="secret"):
        wire.read_hello(body, SECRET, NONCE)


def test_a_hello_of_another_version_is_refused() -> None:
    other = wire.Hello(stream=HELLO.stream, epoch=1, tip="", version=wire.VERSION + 1)
    _, body = only(wire.hello(other, SECRET, NONCE))
    with pytest.raises(LinkError, match="version"):
        wire.read_hello(body, SECRET, NONCE)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        "text",
        7,
        {},
        {"proof": ""},
        {"proof": "x", "stream": "s", "epoch": 1, "tip": "", "version": 1, "extra": 1},
        {"proof": "é", "stream": "s", "epoch": 1, "tip": "", "version": 1},
        {"proof": 7, "stream": "s", "epoch": 1, "tip": "", "version": 1},
        {"proof": "x", "stream": 7, "epoch": 1, "tip": "", "version": 1},
        {"proof": "x", "stream": "s", "epoch": "1", "tip": "", "version": 1},
        {"proof": "x", "stream": "s", "epoch": 2**64, "tip": "", "version": 1},
        {"proof": "x", "stream": "s", "epoch": 1, "tip": None, "version": 1},
    ],
)
def test_a_malformed_hello_is_refused(fields: object) -> None:
    with pytest.raises(LinkError):
        wire.read_hello(json.dumps(fields).encode(), SECRET, NONCE)


@given(st.binary(max_size=200))
def test_a_junk_hello_is_refused(body: bytes) -> None:
    with pytest.raises(LinkError):
        wire.read_hello(body, SECRET, NONCE)


@pytest.mark.parametrize("length", [0, wire.MAX_HELLO_BYTES + 1, 2**32 - 1])
def test_a_length_beyond_the_limit_is_refused_before_its_body_comes(length: int) -> None:
    splitter = wire.Splitter(wire.MAX_HELLO_BYTES)
    with pytest.raises(LinkError, match="limit"):
        list(splitter.feed(pack("<IB", length, wire.HELLO)))


def test_the_limit_can_be_raised_for_a_proved_peer() -> None:
    splitter = wire.Splitter(16)
    splitter.limit_bytes = 1000
    assert list(splitter.feed(wire.frame(wire.BATCH, b"x" * 500))) == [(wire.BATCH, b"x" * 500)]


@given(records, st.data())
def test_a_cut_batch_is_refused(record: Record, data: st.DataObject) -> None:
    _, body = only(wire.batch(1, 1, encoded(record)))
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises((LinkError, DamagedRecordError)):
        wire.read_batch(body[:cut])


@given(records, st.integers(0, 3))
def test_a_batch_whose_count_is_wrong_is_refused(record: Record, count: int) -> None:
    _, body = only(wire.batch(1, count, encoded(record)))
    if count == 1:
        assert wire.read_batch(body) == (1, [record])
        return
    with pytest.raises((LinkError, DamagedRecordError)):
        wire.read_batch(body)


@given(st.binary(max_size=300))
def test_junk_is_no_batch(body: bytes) -> None:
    try:
        _, read = wire.read_batch(body)
    except (LinkError, DamagedRecordError):
        return
    assert 8 + sum(len(encoded(record)) for record in read) == len(body)


@given(st.integers(0, 255), st.binary(max_size=60))
def test_junk_from_a_publisher_is_refused_or_read_as_what_it_says(kind: int, body: bytes) -> None:
    try:
        message = wire.read_down(kind, body)
    except LinkError:
        return
    assert only(written(message))[0] == kind
