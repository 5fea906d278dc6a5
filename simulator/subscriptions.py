"""What a client subscribes to: in the path of its URL, and later by control messages.

As on Binance, a malformed name in SUBSCRIBE gets an error; a well-formed stream that does not
exist, or that does not flow on this route, is acknowledged and stays silent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from relay.binance.streams import StreamSpec, Venue

_ROUTES = ("public", "market", "private")
# All that Binance checks before it acknowledges: a name, an `@`, and something behind it.
_WELL_FORMED = re.compile(r"[^\s@!/,]+(@[\w:+.-]+)+|!\w+(@[\w:+.-]+)*|tradingSession")
_MAX_STRING_ID = 36
_INVALID_REQUEST, _INVALID_JSON = 2, 3


@dataclass(frozen=True, slots=True)
class Target:
    """What a WebSocket URL asks for; `route` is empty on an unrouted path."""

    route: str
    combined: bool
    names: tuple[str, ...]


def parse_target(venue: Venue, path: str) -> Target | None:
    """None for a path that Binance does not serve as a WebSocket."""
    parts = urlsplit(path)
    segments = [unquote(segment) for segment in parts.path.split("/")[1:]]
    route = segments.pop(0) if venue is Venue.USDM and segments[0] in _ROUTES else ""
    if segments == ["stream"]:
        asked = parse_qs(parts.query).get("streams", [""])[0]
        return Target(route, True, _names(asked.split("/")))
    if segments and segments[0] == "ws":
        return Target(route, False, _names(segments[1:]))
    return None


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def flows(route: str, spec: StreamSpec) -> bool:
    """Whether a stream's events come on this route; an unrouted USD-M connection carries `/public`."""
    return spec.venue is not Venue.USDM or spec.route == (route or "public")


@dataclass(frozen=True, slots=True)
class Answer:
    """The frame to send back, and what changed."""

    text: bytes
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class _RefusedError(Exception):
    """This request gets an error object."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Subscriptions:
    """The streams of one connection, in the order asked for, and its combined-form switch."""

    def __init__(self, venue: Venue, target: Target, limit: int, *, wrapped_errors: bool) -> None:
        self.combined = target.combined
        self._venue = venue
        self._limit = limit
        self._wrapped_errors = wrapped_errors
        self._names = dict.fromkeys(target.names)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def answer(self, message: str | bytes) -> Answer:
        request_id: object = None
        try:
            request = _parsed(message)
            request_id = self._checked_id(request)
            return self._done(request, request_id)
        except _RefusedError as refused:
            return Answer(self._error(refused, request_id))

    def _done(self, request: dict[str, Any], request_id: object) -> Answer:
        method, params = request.get("method"), request.get("params", [])
        if method == "SUBSCRIBE":
            return self._subscribe(_stream_names(params), request_id)
        if method == "UNSUBSCRIBE":
            return self._unsubscribe(_stream_names(params), request_id)
        if method == "LIST_SUBSCRIPTIONS":
            return Answer(_result(list(self._names), request_id))
        if method == "SET_PROPERTY" and _is_combined(params, 2) and isinstance(params[1], bool):
            self.combined = params[1]
            return Answer(_result(None, request_id))
        if method == "GET_PROPERTY" and _is_combined(params, 1):
            return Answer(_result(self.combined, request_id))
        raise _RefusedError(_INVALID_REQUEST, "Invalid request: unknown method or invalid property")

    def _subscribe(self, names: tuple[str, ...], request_id: object) -> Answer:
        added = tuple(name for name in names if name not in self._names)
        if len(self._names) + len(added) > self._limit:
            raise _RefusedError(_INVALID_REQUEST, "Invalid request: too many streams")
        self._names.update(dict.fromkeys(added))
        return Answer(_result(None, request_id), added=added)

    def _unsubscribe(self, names: tuple[str, ...], request_id: object) -> Answer:
        removed = tuple(name for name in names if name in self._names)
        for name in removed:
            del self._names[name]
        return Answer(_result(None, request_id), removed=removed)

    def _checked_id(self, request: dict[str, Any]) -> object:
        """Spot takes 64-bit integers, short strings and null; the futures take unsigned integers alone."""
        request_id = request.get("id")
        whole = isinstance(request_id, int) and not isinstance(request_id, bool)
        if self._venue is not Venue.SPOT:
            if not whole or request["id"] < 0:
                raise _RefusedError(
                    _INVALID_REQUEST, "Invalid request: request ID must be an unsigned integer"
                )
            return request_id
        short = isinstance(request_id, str) and len(request_id) <= _MAX_STRING_ID
        if request_id is not None and not whole and not short:
            raise _RefusedError(_INVALID_REQUEST, "Invalid request: request ID must be int64, string or null")
        return request_id

    def _error(self, refused: _RefusedError, request_id: object) -> bytes:
        error = {"code": refused.code, "msg": refused.message}
        # The documentation shows the flat form; clients report the wrapped one from the wire.
        return orjson.dumps(
            {"error": error, "id": request_id} if self._wrapped_errors else error | {"id": request_id}
        )


def _parsed(message: str | bytes) -> dict[str, Any]:
    try:
        request = orjson.loads(message)
    except orjson.JSONDecodeError as error:
        raise _RefusedError(_INVALID_JSON, f"Invalid JSON: {error.msg}") from None
    if not isinstance(request, dict):
        raise _RefusedError(_INVALID_REQUEST, "Invalid request: not an object")
    return request


def _stream_names(params: object) -> tuple[str, ...]:
    if not isinstance(params, list) or not params:
        raise _RefusedError(_INVALID_REQUEST, "Invalid request: params must be a list of streams")
    for name in params:
        if not isinstance(name, str) or not _WELL_FORMED.fullmatch(name):
            raise _RefusedError(_INVALID_REQUEST, "Invalid request: invalid stream")
    return _names(params)


def _is_combined(params: object, length: int) -> bool:
    return isinstance(params, list) and len(params) == length and params[0] == "combined"


def _result(result: object, request_id: object) -> bytes:
    return orjson.dumps({"result": result, "id": request_id})
