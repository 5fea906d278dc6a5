"""A frame that is held against a learned shape is judged as it would be field by field."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.binance.classifier import PayloadClassifier
from relay.binance.payload_shape import shape_of
from relay.binance.streams import Venue, parse_stream

TRADE = {
    "e": "trade",
    "E": 1,
    "T": 2,
    "s": "BTCUSDT",
    "t": 41,
    "p": "5.0",
    "q": "1",
    "X": "MARKET",
    "m": True,
}
BOOK = {"e": "bookTicker", "u": 7, "s": "BTCUSDT", "b": "1.0", "B": "2", "a": "1.1", "A": "3", "T": 4, "E": 5}
FRAMES = {"btcusdt@trade": TRADE, "btcusdt@bookTicker": BOOK}

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.lists(st.none()),
)


def dumped(frame: Any) -> bytes:
    try:
        return orjson.dumps(frame)
    except TypeError:
        return b'{"t":99999999999999999999}'


@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_a_changed_field_gets_the_verdict_that_it_gets_field_by_field(name: str, data: st.DataObject) -> None:
    spec, frame = parse_stream(Venue.USDM, name), FRAMES[name]
    taught = PayloadClassifier(spec)
    taught(orjson.dumps(frame))
    key = data.draw(st.sampled_from(sorted(frame)))
    changed = dumped({**frame, key: data.draw(values)})
    assert taught(changed) == PayloadClassifier(spec)(changed)


@given(st.sampled_from(sorted(FRAMES)), st.integers(0, 150), st.binary(max_size=3), st.integers(0, 3))
def test_any_changed_bytes_get_the_verdict_that_they_get_field_by_field(
    name: str, at: int, new: bytes, cut: int
) -> None:
    spec, payload = parse_stream(Venue.USDM, name), orjson.dumps(FRAMES[name])
    taught = PayloadClassifier(spec)
    taught(payload)
    changed = payload[:at] + new + payload[at + cut :]
    assert taught(changed) == PayloadClassifier(spec)(changed)


def test_a_shape_finds_the_id_of_the_next_frame_and_knows_no_other_stream() -> None:
    shape = shape_of(TRADE, orjson.dumps(TRADE), "t")
    assert shape is not None
    match = shape(orjson.dumps({**TRADE, "t": 42, "p": "6.5", "m": False}))
    assert match is not None
    assert match[1] == b"42"
    assert shape(orjson.dumps({**TRADE, "s": "ETHUSDT"})) is None
    assert shape(orjson.dumps({**TRADE, "p": 6.5})) is None
    assert shape(orjson.dumps({**TRADE, "new": 1})) is None


@pytest.mark.parametrize(
    ("frame", "payload"),
    [
        ({"e": "x", "b": [["1", "2"]]}, b'{"e":"x","b":[["1","2"]]}'),
        ({"e": "x", "k": {"x": True}}, b'{"e":"x","k":{"x":true}}'),
        ({"e": "x", "p": 1.5}, b'{"e":"x","p":1.5}'),
        ({"e": "x", "p": 1}, b'{"e": "x", "p": 1}'),
    ],
)
def test_nested_fractional_or_spaced_frames_have_no_shape(frame: dict[str, Any], payload: bytes) -> None:
    assert shape_of(frame, payload, "") is None


def test_frames_that_gain_a_field_are_learned_anew() -> None:
    judge = PayloadClassifier(parse_stream(Venue.USDM, "btcusdt@trade"))
    for number, extra in enumerate([{}, {"new": 1}, {"new": 2}, {}, {"other": "x"}], start=41):
        assert judge(orjson.dumps({**TRADE, "t": number, **extra})).event_id == number
