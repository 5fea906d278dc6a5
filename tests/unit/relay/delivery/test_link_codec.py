"""The link's codec: what one side writes the other side reads, and nothing else is believed."""

import json
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.delivery import link_codec
from relay.errors import DamagedBatchError, LinkError
from relay.model.position import StoredPosition
from relay.model.record_batch import EVENT_KINDS, RecordBatch, RecordKind

SECRET = b"s" * 32
NONCE = b"n" * link_codec.NONCE_BYTES
HELLO = link_codec.Hello(stream="usdm:btcusdt@trade", epoch=1_700_000_000_000, tip="usdm:btcusdt@trade:7")

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


@st.composite
def batches(draw: st.DrawFn) -> RecordBatch:
    kind = draw(st.sampled_from(list(RecordKind)))
    most = 5 if kind in EVENT_KINDS else 1
    record = st.tuples(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=300))
    some = draw(st.lists(record, min_size=1, max_size=most))
    return RecordBatch(
        kind, *[draw(u64) for _ in range(4)], [one for one, _ in some], [one for _, one in some]
    )


positions = st.builds(StoredPosition, u64, u64, st.integers(-1, 2**63 - 1), u64, u64, u64)
downs = st.one_of(
    st.builds(link_codec.Resume, u32, positions, u32, u32),
    st.builds(link_codec.Ack, u32, u64, st.lists(st.tuples(u64, u32, u32), max_size=5).map(tuple)),
    st.builds(link_codec.Fenced, u64),
    st.builds(link_codec.Alive, st.booleans()),
    st.builds(link_codec.Refused, u32, u64, st.text(st.characters(codec="ascii"), max_size=200)),
)


def written(message: object) -> bytes:
    match message:
        case link_codec.Resume():
            return link_codec.resume(message)
        case link_codec.Ack():
            return link_codec.ack(message.session, message.sent_ns, message.marks)
        case link_codec.Fenced():
            return link_codec.fenced(message.epoch)
        case link_codec.Alive():
            return link_codec.alive(message.connected)
        case link_codec.Refused():
            return link_codec.refused(message)
    raise TypeError(message)


def only(data: bytes) -> tuple[int, bytes]:
    (message,) = link_codec.MessageDecoder(link_codec.MAX_MESSAGE_BYTES).feed(data)
    return message


@given(downs)
def test_what_a_publisher_says_arrives(message: object) -> None:
    assert link_codec.read_down(*only(written(message))) == message


def test_resume_has_this_layout() -> None:
    stored = StoredPosition(epoch=2, seq=3, event_id=-1, recv_ns=6, digest=7, sent_ns=8)
    assert link_codec.resume(link_codec.Resume(1, stored, 4, 5)) == b"".join(
        (
            b"\x3d\0\0\0" + bytes([link_codec.RESUME]),
            (1).to_bytes(4, "little"),
            (2).to_bytes(8, "little"),
            (3).to_bytes(8, "little"),
            (4).to_bytes(4, "little"),
            (5).to_bytes(4, "little"),
            b"\xff" * 8,
            (6).to_bytes(8, "little"),
            (7).to_bytes(8, "little"),
            (8).to_bytes(8, "little"),
        )
    )


@given(u32, st.lists(batches(), min_size=1, max_size=5), st.data())
def test_batches_arrive_whole_and_in_order(
    session: int, sent: list[RecordBatch], data: st.DataObject
) -> None:
    skip = data.draw(st.integers(0, len(sent[0]) - 1))
    kind, body = only(link_codec.batches(session, skip, b"".join(batch.encoded for batch in sent)))
    assert kind == link_codec.BATCHES
    read_session, read_skip, read = link_codec.read_batches(body)
    assert (read_session, read_skip) == (session, skip)
    assert [batch.encoded for batch in read] == [batch.encoded for batch in sent]


@given(st.lists(downs, min_size=1, max_size=10), st.lists(st.integers(1, 40), min_size=1))
def test_messages_are_found_however_the_bytes_are_cut(messages: list[object], cuts: list[int]) -> None:
    data = b"".join(map(written, messages))
    splitter = link_codec.MessageDecoder(link_codec.MAX_MESSAGE_BYTES)
    read = []
    while data:
        size = cuts[len(data) % len(cuts)]
        read += list(splitter.feed(data[:size]))
        data = data[size:]
    assert [link_codec.read_down(*message) for message in read] == messages


def test_a_hello_with_the_secret_is_accepted() -> None:
    kind, body = only(link_codec.hello(HELLO, SECRET, NONCE))
    assert kind == link_codec.HELLO
    assert link_codec.read_hello(body, SECRET, NONCE) == HELLO


def test_a_hello_fits_its_limit() -> None:
    stream = "usdm:" + "币" * 60 + "@trade"
    long = link_codec.Hello(stream=stream, epoch=2**63, tip=f"{stream}:{2**63}")
    assert len(link_codec.hello(long, SECRET, NONCE)) < link_codec.MAX_HELLO_BYTES


@pytest.mark.parametrize(("secret", "nonce"), [(b"other" * 8, NONCE), (SECRET, b"o" * 32)])
def test_a_hello_without_the_secret_or_for_another_connection_is_refused(secret: bytes, nonce: bytes) -> None:
    _, body = only(link_codec.hello(HELLO, secret, nonce))
    with pytest.raises(LinkError, match="secret"):
        link_codec.read_hello(body, SECRET, NONCE)


def test_a_hello_of_another_version_is_refused() -> None:
    other = link_codec.Hello(stream=HELLO.stream, epoch=1, tip="", version=link_codec.VERSION + 1)
    _, body = only(link_codec.hello(other, SECRET, NONCE))
    with pytest.raises(LinkError, match="version"):
        link_codec.read_hello(body, SECRET, NONCE)


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
        link_codec.read_hello(json.dumps(fields).encode(), SECRET, NONCE)


@given(st.binary(max_size=200))
def test_a_junk_hello_is_refused(body: bytes) -> None:
    with pytest.raises(LinkError):
        link_codec.read_hello(body, SECRET, NONCE)


@pytest.mark.parametrize("length", [0, link_codec.MAX_HELLO_BYTES + 1, 2**32 - 1])
def test_a_length_beyond_the_limit_is_refused_before_its_body_comes(length: int) -> None:
    splitter = link_codec.MessageDecoder(link_codec.MAX_HELLO_BYTES)
    with pytest.raises(LinkError, match="limit"):
        list(splitter.feed(pack("<IB", length, link_codec.HELLO)))


def test_the_limit_can_be_raised_for_a_proved_peer() -> None:
    splitter = link_codec.MessageDecoder(16)
    splitter.limit_bytes = 1000
    assert list(splitter.feed(link_codec.frame(link_codec.BATCHES, b"x" * 500))) == [
        (link_codec.BATCHES, b"x" * 500)
    ]


@given(batches(), st.data())
def test_a_cut_batch_is_refused(batch: RecordBatch, data: st.DataObject) -> None:
    _, body = only(link_codec.batches(1, 0, batch.encoded))
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises((LinkError, DamagedBatchError)):
        link_codec.read_batches(body[:cut])


@given(batches(), st.integers(0, 6))
def test_of_a_batch_something_has_to_be_left(batch: RecordBatch, skip: int) -> None:
    _, body = only(link_codec.batches(1, skip, batch.encoded))
    if skip < len(batch):
        assert link_codec.read_batches(body)[1] == skip
        return
    with pytest.raises(LinkError, match="nothing is left"):
        link_codec.read_batches(body)


@pytest.mark.parametrize(
    ("kind", "records"), [(RecordKind.LOSS, 2), (RecordKind.REPAIR, 3), (5, 1), (255, 1)]
)
def test_side_records_come_alone_and_other_kinds_not_at_all(kind: int, records: int) -> None:
    encoded = RecordBatch(kind, 1, 2, 3, 4, [5] * records, [b"{}"] * records).encoded
    with pytest.raises(LinkError, match="kind"):
        link_codec.read_batches(only(link_codec.batches(1, 0, encoded))[1])


@given(st.binary(max_size=300))
def test_junk_is_no_batch(body: bytes) -> None:
    try:
        _, _, read = link_codec.read_batches(body)
    except (LinkError, DamagedBatchError):
        return
    assert 8 + sum(len(batch.encoded) for batch in read) == len(body)


@given(st.integers(0, 255), st.binary(max_size=60))
def test_junk_from_a_publisher_is_refused_or_read_as_what_it_says(kind: int, body: bytes) -> None:
    try:
        message = link_codec.read_down(kind, body)
    except LinkError:
        return
    assert only(written(message))[0] == kind
