"""The REST calls that heal trades and start local books, as pure answers.

Weights, limits and error codes are Binance's: a minute's weight is counted, 429 with `Retry-After` comes
above the limit, and an address that continues is banned with 418.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import orjson

from relay.binance.streams import Venue
from simulator.depth import snapshot
from simulator.market import Market
from simulator.order_book import Book

_PREFIXES = {Venue.SPOT: "/api/v3/", Venue.USDM: "/fapi/v1/", Venue.COINM: "/dapi/v1/"}
_MAX_ROWS = 1000
_DEFAULT_ROWS = 500
_MINUTE_MS = 60_000
_BAN_MS = 2 * _MINUTE_MS
_CALLS_BEFORE_BAN = 20
# Weight of a depth snapshot by the largest limit it covers.
_DEPTH_WEIGHTS = {
    Venue.SPOT: ((100, 5), (500, 25), (1000, 50), (5000, 250)),
    Venue.USDM: ((50, 2), (100, 5), (500, 10), (1000, 20)),
    Venue.COINM: ((50, 2), (100, 5), (500, 10), (1000, 20)),
}
_AGG_KEYS = ("a", "p", "q", "nq", "f", "l", "T", "m", "M")


class History(Protocol):
    """The events of one stream that REST can still show."""

    def after(self, from_id: int, limit: int) -> list[bytes]: ...

    def newest(self, limit: int) -> list[bytes]: ...


class MarketData(Protocol):
    """What the answers are made of; `simulator.operations.Operations` provides it."""

    def history(self, stream: str) -> History | None: ...

    def order_book(self, symbol: str) -> tuple[Market, Book] | None: ...

    def lists(self, symbol: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class RestAnswer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class _RefusedError(Exception):
    """This call is answered with an error object."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message

    @property
    def body(self) -> bytes:
        return orjson.dumps({"code": self.code, "msg": self.message})


class WeightBudget:
    """Request weight of one minute; clients that continue after a 429 are banned."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minute = -1
        self.used = 0
        self._refused = 0
        self._banned_until_ms = 0

    def spend(self, weight: int, now_ms: int) -> tuple[int, int] | None:
        """None when there was enough left, else the HTTP status and the seconds to wait."""
        if now_ms // _MINUTE_MS != self._minute:
            self._minute, self.used, self._refused = now_ms // _MINUTE_MS, 0, 0
        if now_ms < self._banned_until_ms:
            return 418, -(-(self._banned_until_ms - now_ms) // 1000)
        if self.used + weight <= self._limit:
            self.used += weight
            return None
        self._refused += 1
        if self._refused > _CALLS_BEFORE_BAN:
            self._banned_until_ms = now_ms + _BAN_MS
            return 418, _BAN_MS // 1000
        return 429, -(-(_MINUTE_MS - now_ms % _MINUTE_MS) // 1000)


class Rest:
    """Answers GET requests on one venue's base path."""

    def __init__(self, venue: Venue, data: MarketData, weight_limit: int) -> None:
        self._venue = venue
        self._data = data
        self._budget = WeightBudget(weight_limit)
        self._calls: dict[str, Callable[[_Call], bytes]] = {
            "ping": lambda call: b"{}",
            "time": lambda call: b'{"serverTime":%d}' % call.now_ms,
            "depth": self._depth,
            "trades": self._recent_trades,
            "historicalTrades": self._trades,
            "aggTrades": self._agg_trades,
        }

    def serves(self, path: str) -> bool:
        return path.startswith(_PREFIXES[self._venue])

    def answer(self, target: str, api_key: str | None, now_ms: int) -> RestAnswer:
        """`target` is the request's path with its query."""
        parts = urlsplit(target)
        name = parts.path.removeprefix(_PREFIXES[self._venue])
        call = _Call(name, {key: values[0] for key, values in parse_qs(parts.query).items()}, api_key, now_ms)
        if name not in self._calls:
            return RestAnswer(404, b'{"code":-1,"msg":"no such path"}')
        try:
            if (refusal := self._budget.spend(self._weight(call), now_ms)) is not None:
                return self._over_limit(*refusal)
            status, body = 200, self._calls[name](call)
        except _RefusedError as refused:
            status, body = refused.status, refused.body
        return RestAnswer(status, body, {"X-MBX-USED-WEIGHT-1M": str(self._budget.used)})

    def _over_limit(self, status: int, wait_s: int) -> RestAnswer:
        message = "Too many requests; please use WebSocket Streams for live updates to avoid bans."
        headers = {"Retry-After": str(wait_s), "X-MBX-USED-WEIGHT-1M": str(self._budget.used)}
        return RestAnswer(status, orjson.dumps({"code": -1003, "msg": message}), headers)

    def _weight(self, call: _Call) -> int:
        spot = self._venue is Venue.SPOT
        if call.name == "historicalTrades":
            return 25 if spot else 200
        if call.name == "aggTrades":
            return 4 if spot else 20
        if call.name == "trades":
            return 25 if spot else 5
        if call.name == "depth":
            limit = call.number("limit", 100 if spot else 500) or 0
            return next((weight for most, weight in _DEPTH_WEIGHTS[self._venue] if limit <= most), 250)
        return 1

    def _depth(self, call: _Call) -> bytes:
        symbol = self._symbol(call)
        shown = self._data.order_book(symbol)
        if shown is None:
            raise _RefusedError(400, -1121, "No order book is simulated here.")
        limit = call.number("limit", 100 if self._venue is Venue.SPOT else 500) or 1
        return snapshot(*shown, limit, call.now_ms)

    def _trades(self, call: _Call) -> bytes:
        symbol = self._symbol(call)
        if self._venue is not Venue.SPOT and not call.api_key:
            raise _RefusedError(401, -2014, "API-key format invalid.")
        return orjson.dumps([self._trade_row(event) for event in self._events(call, f"{symbol}@trade")])

    def _recent_trades(self, call: _Call) -> bytes:
        newest = replace(call, query={key: each for key, each in call.query.items() if key != "fromId"})
        events = self._events(newest, f"{self._symbol(call)}@trade")
        return orjson.dumps([self._trade_row(event) for event in events])

    def _trade_row(self, event: dict[str, Any]) -> dict[str, Any]:
        amount = format(Decimal(event["p"]) * Decimal(event["q"]), "f")
        row = {"id": event["t"], "price": event["p"], "qty": event["q"]}
        row["baseQty" if self._venue is Venue.COINM else "quoteQty"] = amount
        row |= {"time": event["T"], "isBuyerMaker": event["m"]}
        return row | {"isBestMatch": event["M"]} if self._venue is Venue.SPOT else row

    def _agg_trades(self, call: _Call) -> bytes:
        events = self._events(call, f"{self._symbol(call)}@aggTrade")
        return orjson.dumps([{key: event[key] for key in _AGG_KEYS if key in event} for event in events])

    def _events(self, call: _Call, stream: str) -> list[dict[str, Any]]:
        limit = min(call.number("limit", _DEFAULT_ROWS) or 1, _MAX_ROWS)
        from_id = call.number("fromId", None)
        history = self._data.history(stream)
        if history is None:
            return []
        payloads = history.newest(limit) if from_id is None else history.after(from_id, limit)
        return [orjson.loads(payload) for payload in payloads]

    def _symbol(self, call: _Call) -> str:
        symbol = call.query.get("symbol", "")
        if not symbol:
            raise _RefusedError(
                400, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
            )
        if symbol != symbol.upper() or not self._data.lists(symbol.lower()):
            raise _RefusedError(400, -1121, "Invalid symbol.")
        return symbol.lower()


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    query: dict[str, str]
    api_key: str | None
    now_ms: int

    def number(self, name: str, default: int | None) -> int | None:
        text = self.query.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit():
            raise _RefusedError(400, -1100, f"Illegal characters found in parameter '{name}'.")
        return int(text)
