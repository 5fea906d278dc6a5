"""Frames: what each kind of stream lets through, and the reason for what it does not."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.binance.classifier import Classification, PayloadClass, PayloadClassifier, classify
from relay.binance.grammar import SYMBOLLESS, WITH_SYMBOL
from relay.binance.streams import Venue, parse_stream
from relay.model.record_batch import NO_EVENT_ID
from tests.support.paths import SAMPLES

LEVELS = [["61800.20", "2.909"]]
KLINE = {"t": 1, "T": 2, "s": "BTCUSDT", "i": "1m", "x": False}
TRADE = {"e": "trade", "E": 1, "T": 1, "s": "BTCUSDT", "t": 7, "p": "1", "q": "2", "X": "MARKET", "m": True}
DIFF = {"e": "depthUpdate", "E": 1, "T": 1, "s": "BTCUSDT", "U": 5, "u": 9, "pu": 3, "b": LEVELS, "a": []}
SPOT_DIFF = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": 5, "u": 9, "b": LEVELS, "a": []}
TICKER = {"e": "24hrTicker", "E": 1, "s": "BTCUSDT", "c": "1"}
MARK = {"e": "markPriceUpdate", "E": 1, "s": "BTCUSDT", "p": "1", "r": "0.0001", "T": 2}

ACCEPTED: list[tuple[str, str, Any]] = [
    ("usdm", "btcusdt@trade", TRADE),
    ("usdm", "btcusdt@trade", TRADE | {"X": "SOMETHING_NEW", "st": 1, "zz": {"a": []}}),
    ("usdm", "btcusdt@aggTrade", {"e": "aggTrade", "s": "BTCUSDT", "a": 4, "f": 1, "l": 2}),
    ("spot", "btcusdt@blockTrade", {"e": "blockTrade", "s": "BTCUSDT", "t": 582}),
    ("usdm", "btcusdt@depth@100ms", DIFF),
    ("spot", "btcusdt@depth@100ms", SPOT_DIFF),
    ("usdm", "btcusdt@depth20@100ms", DIFF),
    ("usdm", "btcusdt@rpiDepth@500ms", DIFF),
    ("spot", "btcusdt@depth20@100ms", {"lastUpdateId": 9, "bids": LEVELS, "asks": []}),
    ("spot", "btcusdt@bookTicker", {"u": 9, "s": "BTCUSDT", "b": "1", "B": "2", "a": "3", "A": "4"}),
    ("usdm", "btcusdt@bookTicker", {"e": "bookTicker", "u": 9, "s": "BTCUSDT", "b": "1", "a": "3"}),
    ("usdm", "!bookTicker", {"e": "bookTicker", "u": 9, "s": "ETHUSDT", "b": "1", "a": "3"}),
    ("usdm", "btcusdt@ticker", TICKER),
    ("usdm", "!ticker@arr", [TICKER, TICKER | {"s": "ETHUSDT"}]),
    ("usdm", "!ticker@arr", []),
    ("spot", "btcusdt@ticker_1h", {"e": "1hTicker", "s": "BTCUSDT"}),
    ("spot", "btcusdt@referencePrice", {"e": "referencePrice", "s": "BTCUSDT", "r": None, "t": 1}),
    ("usdm", "btcusdt@markPrice@1s", MARK),
    ("usdm", "!markPrice@arr@1s", [MARK]),
    ("coinm", "btcusd@markPrice", [MARK | {"s": "BTCUSD_PERP"}, MARK | {"s": "BTCUSD_260925"}]),
    ("coinm", "btcusd@indexPrice", {"e": "IndexUpdate", "i": "BTCUSD", "p": "1"}),
    ("coinm", "btcusd@indexPrice", {"e": "indexPriceUpdate", "i": "BTCUSD", "p": "1"}),
    ("usdm", "btcusdt@kline_1m", {"e": "kline", "s": "BTCUSDT", "k": KLINE}),
    (
        "usdm",
        "btcusdt_next_quarter@continuousKline_1m",
        {"e": "continuous_kline", "ps": "BTCUSDT", "ct": "NEXT_QUARTER", "k": KLINE},
    ),
    ("coinm", "btcusd@indexPriceKline_1m", {"e": "indexPrice_kline", "ps": "BTCUSD", "k": KLINE}),
    (
        "coinm",
        "btcusd_perp@markPriceKline_1m",
        {"e": "markPrice_kline", "ps": "BTCUSD", "k": KLINE | {"s": "BTCUSD_PERP"}},
    ),
    ("usdm", "btcusdt@forceOrder", {"e": "forceOrder", "o": {"s": "BTCUSDT"}}),
    ("usdm", "!forceOrder@arr", {"e": "forceOrder", "o": {"s": "ETHUSDT"}}),
    ("usdm", "!contractInfo", {"e": "contractInfo", "s": "BTCUSDT"}),
    ("usdm", "defiusdt@compositeIndex", {"e": "compositeIndex", "s": "DEFIUSDT"}),
    ("usdm", "tradingSession", {"e": "EquityUpdate", "E": 1, "S": "PRE_MARKET"}),
    ("spot", "币usdt@trade", {"e": "trade", "s": "币USDT", "t": 1}),
]

REJECTED: list[tuple[str, str, Any, str]] = [
    ("usdm", "btcusdt@trade", TRADE | {"s": "ETHUSDT"}, "symbol is 'ETHUSDT'"),
    ("usdm", "btcusdt@trade", TRADE | {"s": "btcusdt"}, "symbol is 'btcusdt'"),
    ("usdm", "btcusdt@trade", TRADE | {"e": "aggTrade"}, "event type is 'aggTrade'"),
    ("usdm", "btcusdt@trade", {"s": "BTCUSDT", "t": 7}, "event type is missing"),
    ("usdm", "btcusdt@trade", TRADE | {"t": "7"}, "id t is '7'"),
    ("usdm", "btcusdt@trade", TRADE | {"t": -1}, "id t is -1"),
    ("usdm", "btcusdt@trade", TRADE | {"t": True}, "id t is true"),
    ("usdm", "btcusdt@trade", TRADE | {"t": 2**63}, "id t is 9223372036854775808"),
    ("usdm", "btcusdt@trade", {"e": "trade", "s": "BTCUSDT"}, "id t is missing"),
    ("usdm", "btcusdt@trade", [TRADE], "not a JSON object"),
    ("usdm", "btcusdt@trade", "trade", "not a JSON object"),
    ("usdm", "btcusdt@trade", {"stream": "btcusdt@trade", "data": TRADE}, "a combined-stream envelope"),
    ("usdm", "btcusdt@depth@100ms", DIFF | {"b": None}, "b is not a list"),
    ("usdm", "btcusdt@depth20@100ms", {"e": "depthUpdate", "s": "BTCUSDT", "b": []}, "a is not a list"),
    ("spot", "btcusdt@depth20@100ms", SPOT_DIFF, "bids is not a list"),
    ("spot", "btcusdt@depth20@100ms", {"bids": [], "asks": []}, "lastUpdateId is not a whole number"),
    ("spot", "btcusdt@bookTicker", SPOT_DIFF | {"e": None}, "b is not text"),
    ("spot", "btcusdt@bookTicker", {"u": 9, "s": "ETHUSDT", "b": "1", "a": "3"}, "symbol is 'ETHUSDT'"),
    ("usdm", "!ticker@arr", TICKER, "not a JSON array"),
    ("usdm", "!ticker@arr", [TICKER, MARK], "event type is 'markPriceUpdate'"),
    ("usdm", "!ticker@arr", [TICKER, 5], "an element is not a JSON object"),
    ("coinm", "btcusd@markPrice", [MARK | {"s": "ETHUSD_PERP"}], "symbol is 'ETHUSD_PERP'"),
    ("coinm", "btcusd@indexPrice", {"e": "IndexUpdate", "i": "ETHUSD", "p": "1"}, "pair is 'ETHUSD'"),
    (
        "usdm",
        "btcusdt@kline_1m",
        {"e": "kline", "s": "BTCUSDT", "k": KLINE | {"i": "1h"}},
        "interval is '1h'",
    ),
    ("usdm", "btcusdt@kline_1m", {"e": "kline", "s": "BTCUSDT", "k": {}}, "k is not a kline"),
    (
        "usdm",
        "btcusdt_perpetual@continuousKline_1m",
        {"e": "continuous_kline", "ps": "BTCUSDT", "ct": "NEXT_QUARTER", "k": KLINE},
        "contract type is 'NEXT_QUARTER'",
    ),
    (
        "coinm",
        "btcusd_perp@markPriceKline_1m",
        {"e": "markPrice_kline", "ps": "BTCUSD", "k": KLINE | {"s": "BTCUSD_260925"}},
        "symbol is 'BTCUSD_260925'",
    ),
    ("usdm", "btcusdt@forceOrder", {"e": "forceOrder", "o": {"s": "ETHUSDT"}}, "symbol is 'ETHUSDT'"),
    ("usdm", "btcusdt@forceOrder", {"e": "forceOrder", "o": []}, "o is not an object"),
    ("usdm", "tradingSession", {"S": "PRE_MARKET"}, "e is not text"),
]

CONTROL: list[Any] = [
    {"result": None, "id": 1},
    {"result": ["btcusdt@trade"], "id": 3},
    {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": 2},
    {"code": 2, "msg": "Invalid request: request ID must be an unsigned integer"},
    {"code": 0, "msg": "Unknown property", "id": 5},
]


def classification(venue: str, name: str, frame: Any) -> Classification:
    return classify(parse_stream(Venue(venue), name), orjson.dumps(frame))


def every_stream() -> Iterator[tuple[Venue, str]]:
    for venue in Venue:
        yield from ((venue, name) for name in SYMBOLLESS[venue])
        for form in WITH_SYMBOL[venue]:
            pair = form.startswith("indexPrice")
            yield venue, f"btcusd@{form}" if pair else f"btcusd_perpetual@{form}"


@pytest.mark.parametrize(("venue", "name", "frame"), ACCEPTED)
def test_a_frame_of_the_stream_is_accepted(venue: str, name: str, frame: Any) -> None:
    found = classification(venue, name, frame)
    assert (found.payload_class, found.reason) == (PayloadClass.ACCEPTED, "")


@pytest.mark.parametrize(("venue", "name", "frame", "reason"), REJECTED)
def test_a_frame_that_is_not_of_the_stream_is_rejected_with_the_reason(
    venue: str, name: str, frame: Any, reason: str
) -> None:
    found = classification(venue, name, frame)
    assert (found.payload_class, found.reason) == (PayloadClass.REJECTED, reason)
    assert found.event_id == NO_EVENT_ID


@pytest.mark.parametrize("payload", [b"", b"{", b'{"e":"trade"', b"\xff", b'{"e":NaN}', b"[" * 2000, b"\x00"])
def test_what_is_not_json_is_rejected(payload: bytes) -> None:
    found = classify(parse_stream(Venue.USDM, "btcusdt@trade"), payload)
    assert (found.payload_class, found.reason) == (PayloadClass.REJECTED, "not JSON")


def test_answers_and_errors_are_control_on_every_stream() -> None:
    for venue, name in every_stream():
        for frame in CONTROL:
            assert classification(venue, name, frame).payload_class is PayloadClass.CONTROL, (
                venue,
                name,
                frame,
            )


def test_the_shutdown_notice_is_known_on_every_stream() -> None:
    for venue, name in every_stream():
        found = classification(venue, name, {"e": "serverShutdown", "E": 1770123456789})
        assert found.payload_class is PayloadClass.SHUTDOWN, (venue, name)


@pytest.mark.parametrize(
    ("venue", "name", "frame", "event_id", "previous_id"),
    [
        ("usdm", "btcusdt@trade", TRADE, 7, 6),
        ("usdm", "btcusdt@aggTrade", {"e": "aggTrade", "s": "BTCUSDT", "a": 4}, 4, 3),
        ("spot", "btcusdt@blockTrade", {"e": "blockTrade", "s": "BTCUSDT", "t": 5}, 5, NO_EVENT_ID),
        ("spot", "btcusdt@depth@100ms", SPOT_DIFF, 9, 4),
        ("usdm", "btcusdt@depth@100ms", DIFF, 9, 3),
        ("usdm", "btcusdt@depth@100ms", DIFF | {"pu": None}, 9, NO_EVENT_ID),
        ("usdm", "btcusdt@depth20@100ms", DIFF, NO_EVENT_ID, NO_EVENT_ID),
        ("usdm", "btcusdt@ticker", TICKER, NO_EVENT_ID, NO_EVENT_ID),
    ],
)
def test_an_event_tells_its_id_and_the_one_before(
    venue: str, name: str, frame: Any, event_id: int, previous_id: int
) -> None:
    found = classification(venue, name, frame)
    assert (found.event_id, found.previous_id) == (event_id, previous_id)


@pytest.mark.parametrize(("venue", "name", "frame"), ACCEPTED)
def test_only_events_of_snapshot_streams_may_be_conflated(venue: str, name: str, frame: Any) -> None:
    assert classification(venue, name, frame).conflatable is parse_stream(Venue(venue), name).snapshot


def test_a_finished_kline_is_never_conflated() -> None:
    finished = {"e": "kline", "s": "BTCUSDT", "k": KLINE | {"x": True}}
    found = classification("usdm", "btcusdt@kline_1m", finished)
    assert (found.payload_class, found.conflatable) == (PayloadClass.ACCEPTED, False)


def test_a_reason_stays_on_one_short_line_whatever_the_frame_says() -> None:
    found = classification("usdm", "btcusdt@trade", TRADE | {"s": "X\r\nNats-Msg-Id: 1" * 1000})
    assert found.reason.isprintable()
    assert len(found.reason) < 80


KEYS = ["e", "s", "t", "u", "U", "pu", "b", "a", "k", "o", "x", "i", "ps", "ct", "id", "result", "code"]
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["BTCUSDT", "1m"])
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=8,
)
DISTORTIONS = st.dictionaries(st.sampled_from(KEYS), ANY_JSON, max_size=3)


@settings(deadline=None)
@given(st.sampled_from(ACCEPTED), DISTORTIONS)
def test_any_distorted_frame_gets_a_verdict(case: tuple[str, str, Any], distortion: dict[str, Any]) -> None:
    venue, name, frame = case
    distorted = frame | distortion if isinstance(frame, dict) else [distortion]
    found = classify(parse_stream(Venue(venue), name), json.dumps(distorted).encode())
    assert (found.payload_class is PayloadClass.REJECTED) == bool(found.reason)
    assert found.event_id >= NO_EVENT_ID


ANY_BYTES = st.binary(max_size=40) | ANY_JSON.map(json.dumps).map(str.encode)


@settings(deadline=None)
@given(st.sampled_from(sorted(every_stream())), ANY_BYTES)
def test_any_bytes_get_a_verdict(stream: tuple[Venue, str], payload: bytes) -> None:
    found = classify(parse_stream(*stream), payload)
    assert (found.payload_class is PayloadClass.REJECTED) == bool(found.reason)


def recorded(name: str) -> Iterator[tuple[str, bytes]]:
    """Stream and payload of each recorded frame, the payload as it was on the wire."""
    with gzip.open(SAMPLES / name) as lines:
        for line in lines:
            frame = line.rstrip().split(b" ", 1)[1]
            head, found, rest = frame.partition(b'","data":')
            if found:
                yield head.removeprefix(b'{"stream":"').decode(), rest[:-1]


@pytest.fixture(params=[("spot", "spot_btcusdt_20240808.gz"), ("usdm", "usdm_btcusdt_20240808.gz")])
def recording(request: pytest.FixtureRequest) -> tuple[Venue, list[tuple[str, bytes]]]:
    venue, name = request.param
    if not (SAMPLES / name).is_file():
        pytest.skip(f"no recorded frames: {name} is not in ../shared/samples beside the repository")
    return Venue(venue), list(recorded(name))


def test_every_recorded_frame_is_accepted_by_its_own_stream_and_no_id_is_missing(
    recording: tuple[Venue, list[tuple[str, bytes]]],
) -> None:
    venue, frames = recording
    classifiers = {
        name: PayloadClassifier(parse_stream(venue, name)) for name in {name for name, _ in frames}
    }
    last_id: dict[str, int] = {}
    for name, payload in frames:
        found = classifiers[name](payload)
        assert found.payload_class is PayloadClass.ACCEPTED, (name, found.reason)
        assert found.previous_id in (NO_EVENT_ID, last_id.get(name, found.previous_id))
        last_id[name] = found.event_id
    assert len(frames) > 40_000
    assert len(classifiers) == 3


def test_no_recorded_frame_is_accepted_by_another_stream(
    recording: tuple[Venue, list[tuple[str, bytes]]],
) -> None:
    venue, frames = recording
    names = {name for name, _ in frames} | {"ethusdt@trade", "ethusdt@bookTicker", "btcusdt@depth20"}
    # On USD-M a partial book and a diff look the same on the wire.
    alike = {"btcusdt@depth20", "btcusdt@depth@0ms"}
    classifiers = {name: PayloadClassifier(parse_stream(venue, name)) for name in names}
    for name, payload in frames[:2000]:
        for other in names - {name}:
            if not (venue is Venue.USDM and {name, other} <= alike):
                assert classifiers[other](payload).payload_class is PayloadClass.REJECTED, (name, other)
