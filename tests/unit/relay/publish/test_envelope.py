"""The envelope is the old client's, byte for byte, around a payload that nobody touched."""

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from relay.publish.envelope import TAIL, Envelope, payload_of

RECV_NS = 1_767_225_600_123_456_789  # 2026-01-01T00:00:00.123456789Z
ID = b"usdm:btcusdt@trade:7"


def test_the_message_has_exactly_the_old_clients_bytes() -> None:
    wrapped = Envelope("btcusdt@trade").wrap(b'{"e":"trade"}', RECV_NS, ID)
    assert wrapped == (
        b'{"stream":"btcusdt@trade","data":{"e":"trade"},"timestamp":"2026-01-01T00:00:00.123456Z",'
        b'"message_id":"usdm:btcusdt@trade:7","source":"binance-websocket","version":"1.0"}'
    )


def test_the_parts_are_what_wrap_puts_around_a_payload() -> None:
    envelope = Envelope("btcusdt@trade")
    parts = envelope.head + b"[]" + envelope.stamp(RECV_NS) + ID + TAIL
    assert parts == envelope.wrap(b"[]", RECV_NS, ID)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
    st.sampled_from([None, 1, " "]),
    st.booleans(),
)
def test_the_payload_keeps_its_bytes_however_written(value: object, indent: object, ascii: bool) -> None:
    payload = json.dumps(value, indent=indent, ensure_ascii=ascii).encode(errors="surrogatepass")
    envelope = Envelope("btcusdt@trade")
    wrapped = envelope.wrap(payload, RECV_NS, ID)
    assert wrapped[len(envelope.head) :].startswith(payload + b',"timestamp":')
    if ascii:
        assert json.loads(wrapped)["data"] == value


@given(st.binary())
def test_a_payload_is_found_in_its_envelope_whatever_it_holds(payload: bytes) -> None:
    for tricky in (payload, b'{"a":1,"data":2,"timestamp":"3"}', b',"timestamp":"', b',"data":'):
        assert payload_of(Envelope("btcusdt@trade").wrap(tricky, RECV_NS, ID)) == tricky


def test_what_is_no_envelope_has_no_payload() -> None:
    assert [payload_of(body) for body in (b"", b"hello", b',"timestamp":"x,"data":')] == [b"", b"", b""]


def test_numbers_keep_their_digits() -> None:
    payload = b'{"p":"0.00001000","q":1.10, "T":12345678901234567890,"x":1e5 }'
    assert payload in Envelope("a@b").wrap(payload, RECV_NS, ID)


def test_a_name_beyond_ascii_is_kept() -> None:
    name = "币安人生usdt@trade"
    assert json.loads(Envelope(name).wrap(b"1", RECV_NS, f"usdm:{name}:7".encode())) == {
        "stream": name,
        "data": 1,
        "timestamp": "2026-01-01T00:00:00.123456Z",
        "message_id": f"usdm:{name}:7",
        "source": "binance-websocket",
        "version": "1.0",
    }


@given(st.lists(st.integers(min_value=0, max_value=4_102_444_800 * 10**9), min_size=1, max_size=20))
def test_the_timestamp_is_the_time_of_reading_whatever_came_before(times: list[int]) -> None:
    envelope = Envelope("btcusdt@trade")
    for recv_ns in times:
        text = json.loads(envelope.wrap(b"0", recv_ns, ID))["timestamp"]
        assert len(text) == len("2026-01-01T00:00:00.123456Z")
        read = datetime.fromisoformat(text) - datetime.fromtimestamp(0, UTC)
        micros = (read.days * 86400 + read.seconds) * 10**6 + read.microseconds
        assert micros == recv_ns // 1000
