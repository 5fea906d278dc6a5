"""Classifies payloads: whether each is an event of its stream, and with which id; pure.

Unknown fields and values are accepted, as Binance adds them without notice. Fields that identify the event
must be there and right: publishing another stream's event under this name would be worse than losing one.
Each payload is matched or parsed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import orjson

from relay.binance.payload_shape import PayloadShape, shape_of
from relay.binance.streams import ALL_SYMBOLS, StreamKind, StreamSpec, Venue, split_contract
from relay.model.record_batch import NO_EVENT_ID
from relay.primitives.text import quoted

# A record holds the id as a signed 64-bit number.
_MAX_EVENT_ID = 2**63 - 1
# After learning so many shapes a stream's payloads are checked field by field, as their shape keeps changing.
_MAX_RELEARNED = 8
_K = StreamKind
_KLINES = frozenset({_K.KLINE, _K.CONTINUOUS_KLINE, _K.INDEX_PRICE_KLINE, _K.MARK_PRICE_KLINE})
_SYMBOL_ELSEWHERE = (_KLINES - {_K.KLINE}) | {_K.INDEX_PRICE, _K.FORCE_ORDER}

Check = Callable[[dict[str, Any]], str]


class PayloadClass(IntEnum):
    """CONTROL answers a request or reports an error; SHUTDOWN asks for a new connection at once."""

    ACCEPTED = 0
    REJECTED = 1
    CONTROL = 2
    SHUTDOWN = 3


class Classification(NamedTuple):
    """`event_id` is NO_EVENT_ID for kinds without a unique id; `reason` says why a payload was rejected.

    `previous_id` is the id that the event before this one must have had, NO_EVENT_ID where no field tells.
    `conflatable` means that a later event of the stream replaces this one. `own_link_id` is what the event
    after this one names as its predecessor, where that is no unique id.
    """

    payload_class: PayloadClass
    event_id: int = NO_EVENT_ID
    previous_id: int = NO_EVENT_ID
    conflatable: bool = False
    reason: str = ""
    own_link_id: int = NO_EVENT_ID


_EVENT = Classification(PayloadClass.ACCEPTED)
_STATE = Classification(PayloadClass.ACCEPTED, conflatable=True)
_CONTROL = Classification(PayloadClass.CONTROL)
_SHUTDOWN = Classification(PayloadClass.SHUTDOWN)


def classify(spec: StreamSpec, payload: bytes) -> Classification:
    """For single payloads; to read a stream, keep one PayloadClassifier."""
    return PayloadClassifier(spec)(payload)


class PayloadClassifier:
    """Call it with each payload of `spec`."""

    def __init__(self, spec: StreamSpec) -> None:
        self._array = spec.array
        self._event_type = spec.event_type
        self._symbol = _symbol_expected(spec)
        self._id_key = spec.id_key
        self._previous_key = _previous_key(spec)
        self._kline = spec.kind in _KLINES
        self._checks = tuple(_checks(spec))
        self._state = _STATE if spec.snapshot else _EVENT
        # Whether events that match the learned shape are conflatable.
        self.conflatable = self._state.conflatable and not self._id_key
        self._counts_on = bool(self._id_key) and self._previous_key == self._id_key
        self._shape: PayloadShape | None = None
        self._shapes_learned = 0

    def __call__(self, payload: bytes) -> Classification:
        match = self._shape(payload) if self._shape else None
        if match is None:
            return self._classify_event(payload)
        if not self._id_key:
            return self._state
        event_id = int(match[1])
        return Classification(
            PayloadClass.ACCEPTED, event_id, event_id - 1 if self._counts_on else NO_EVENT_ID
        )

    def event_ids(self, payloads: Sequence[bytes]) -> list[int] | None:
        """The ids of the payloads if all match the learned shape and each id implies its predecessor's; else
        None.

        NO_EVENT_ID for each where the kind has no ids.
        """
        shape = self._shape
        if shape is None or (self._id_key and not self._counts_on):
            return None
        event_ids = []
        for payload in payloads:
            match = shape(payload)
            if match is None:
                return None
            event_ids.append(int(match[1]) if self._id_key else NO_EVENT_ID)
        return event_ids

    def _classify_event(self, payload: bytes) -> Classification:
        try:
            frame = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return _rejected("not JSON")
        if self._array and type(frame) is list:
            return self._classify_all(frame)
        if type(frame) is not dict:
            return _rejected("not a JSON object")
        reason = self._mismatch(frame) if not self._array else "not a JSON array"
        if reason:
            return _control(frame) or _rejected(_envelope(frame) or reason)
        classification = self._classify_id(frame) if self._id_key else self._classify_state(frame)
        if classification.payload_class is PayloadClass.ACCEPTED and self._shapes_learned < _MAX_RELEARNED:
            self._shapes_learned += 1
            self._shape = shape_of(frame, payload, self._id_key)
        return classification

    def _classify_all(self, frame: list[Any]) -> Classification:
        for element in frame:
            reason = self._mismatch(element) if type(element) is dict else "an element is not a JSON object"
            if reason:
                return _rejected(reason)
        return self._state

    def _mismatch(self, frame: dict[str, Any]) -> str:
        """Why the payload does not belong to this stream; empty if it does."""
        if self._event_type and frame.get("e") != self._event_type:
            return f"event type is {_brief(frame.get('e'))}"
        if self._symbol and frame.get("s") != self._symbol:
            return f"symbol is {_brief(frame.get('s'))}"
        for check in self._checks:
            if reason := check(frame):
                return reason
        return ""

    def _classify_id(self, frame: dict[str, Any]) -> Classification:
        event_id = frame.get(self._id_key)
        if type(event_id) is not int or not 0 <= event_id <= _MAX_EVENT_ID:
            return _rejected(f"id {self._id_key} is {_brief(event_id)}")
        return Classification(PayloadClass.ACCEPTED, event_id, self._previous_id(frame, event_id))

    def _previous_id(self, frame: dict[str, Any], event_id: int) -> int:
        if self._previous_key == self._id_key:
            return event_id - 1
        previous = frame.get(self._previous_key)
        if type(previous) is not int:
            return NO_EVENT_ID
        return previous - 1 if self._previous_key == "U" else previous

    def _classify_state(self, frame: dict[str, Any]) -> Classification:
        if self._previous_key:
            return self._classify_link(frame)
        # The event of a closed kline is final: no later event replaces it.
        if self._kline and frame["k"]["x"]:
            return _EVENT
        return self._state

    def _classify_link(self, frame: dict[str, Any]) -> Classification:
        link_id = frame.get("u")
        if type(link_id) is not int or not 0 <= link_id <= _MAX_EVENT_ID:
            return _rejected(f"id u is {_brief(link_id)}")
        return Classification(
            PayloadClass.ACCEPTED, previous_id=self._previous_id(frame, link_id), own_link_id=link_id
        )


def _symbol_expected(spec: StreamSpec) -> str:
    """What the field `s` must be; empty for kinds that have the symbol elsewhere or nowhere."""
    nameless = spec.symbol == ALL_SYMBOLS or spec.array or spec.kind in _SYMBOL_ELSEWHERE
    if nameless or (spec.kind is _K.DEPTH_PARTIAL and spec.venue is Venue.SPOT):
        return ""
    return spec.symbol.upper()


def _previous_key(spec: StreamSpec) -> str:
    """The field that tells the id of the event before; ids of trades just count up.

    A spot depth update has `U`, which is one above the last `u`; on futures `pu` is the last `u`.
    """
    if spec.kind is _K.DEPTH_DIFF:
        return "U" if spec.venue is Venue.SPOT else "pu"
    if spec.kind is _K.RPI_DEPTH:
        return "pu"
    return spec.id_key if spec.kind in (_K.TRADE, _K.AGG_TRADE) else ""


def _checks(spec: StreamSpec) -> list[Check]:
    """What a payload of this kind must have besides its event type, symbol and id."""
    symbol = spec.symbol.upper()
    match spec.kind:
        case _K.DEPTH_PARTIAL if spec.venue is Venue.SPOT:
            return [_lists("bids", "asks"), _number("lastUpdateId")]
        case _K.DEPTH_DIFF | _K.DEPTH_PARTIAL | _K.RPI_DEPTH:
            return [_lists("b", "a")]
        case _K.BOOK_TICKER:
            return [_number("u"), _texts("b", "a")]
        case _K.KLINE:
            return [_kline(spec.interval)]
        case _K.CONTINUOUS_KLINE:
            pair, contract = split_contract(symbol.lower())
            contract_check = _equals("ct", contract.upper(), "contract type")
            return [_equals("ps", pair.upper(), "pair"), contract_check, _kline(spec.interval)]
        case _K.INDEX_PRICE_KLINE:
            return [_equals("ps", symbol, "pair"), _kline(spec.interval)]
        case _K.MARK_PRICE_KLINE:
            return [_kline(spec.interval), _within("k", symbol)]
        case _K.INDEX_PRICE:
            return [_equals("i", symbol, "pair"), _texts("p")]
        case _K.FORCE_ORDER:
            return [_within("o", "" if spec.symbol == ALL_SYMBOLS else symbol)]
        case _K.MARK_PRICE if spec.array and spec.symbol != ALL_SYMBOLS:
            return [_contract_of(symbol)]
        case _K.TRADING_SESSION:
            return [_texts("e", "S")]
        case _:
            return []


def _equals(key: str, expected: str, what: str) -> Check:
    return lambda frame: "" if frame.get(key) == expected else f"{what} is {_brief(frame.get(key))}"


def _contract_of(pair: str) -> Check:
    def check(frame: dict[str, Any]) -> str:
        symbol = frame.get("s")
        mine = type(symbol) is str and symbol.startswith(f"{pair}_")
        return "" if mine else f"symbol is {_brief(symbol)}"

    return check


def _of_type(kind: type, keys: tuple[str, ...], what: str) -> Check:
    def check(frame: dict[str, Any]) -> str:
        for key in keys:
            if type(frame.get(key)) is not kind:
                return f"{key} is not {what}"
        return ""

    return check


def _lists(*keys: str) -> Check:
    return _of_type(list, keys, "a list")


def _texts(*keys: str) -> Check:
    return _of_type(str, keys, "text")


def _number(*keys: str) -> Check:
    return _of_type(int, keys, "a whole number")


def _kline(interval: str) -> Check:
    def check(frame: dict[str, Any]) -> str:
        kline = frame.get("k")
        if type(kline) is not dict or type(kline.get("x")) is not bool:
            return "k is not a kline"
        return "" if kline.get("i") == interval else f"interval is {_brief(kline.get('i'))}"

    return check


def _within(key: str, symbol: str) -> Check:
    """The symbol is one level down; empty means any."""

    def check(frame: dict[str, Any]) -> str:
        inner = frame.get(key)
        if type(inner) is not dict:
            return f"{key} is not an object"
        return f"symbol is {_brief(inner.get('s'))}" if symbol and inner.get("s") != symbol else ""

    return check


def _control(frame: dict[str, Any]) -> Classification | None:
    """Answers and errors come flat or wrapped, with or without the id of their request."""
    if frame.get("e") == "serverShutdown":
        return _SHUTDOWN
    answer = "result" in frame and "id" in frame
    flat_error = "code" in frame and "msg" in frame
    return _CONTROL if answer or flat_error or type(frame.get("error")) is dict else None


def _envelope(frame: dict[str, Any]) -> str:
    return "a combined-stream envelope" if "stream" in frame and "data" in frame else ""


def _rejected(reason: str) -> Classification:
    return Classification(PayloadClass.REJECTED, reason=reason)


def _brief(value: Any) -> str:
    """A value as a reason quotes it: payloads may be large, and a reason travels in one line."""
    if value is None:
        return "missing"
    return f"of type {type(value).__name__}" if type(value) in (dict, list) else quoted(value, 40)
