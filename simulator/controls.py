"""How tests and `demo` control the exchange over HTTP, below `/sim/`: POST acts, GET reports."""

from __future__ import annotations

import logging
from collections.abc import Callable
from inspect import isawaitable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from relay.errors import SluiceError, UsageError
from simulator.handshake_limits import HANG, RESET
from simulator.operations import Operations
from simulator.rest import RestAnswer

PREFIX = "/sim/"
_log = logging.getLogger(__name__)


class Query:
    """The parameters of one call; a missing or wrong one raises UsageError."""

    def __init__(self, text: str) -> None:
        self._values = {key: values[-1] for key, values in parse_qs(text, keep_blank_values=True).items()}

    def text(self, name: str) -> str:
        if name not in self._values:
            raise UsageError(f"the parameter {name} is missing")
        return self._values[name]

    def maybe(self, name: str) -> str | None:
        return self._values.get(name)

    def number(self, name: str) -> float:
        try:
            return float(self.text(name))
        except ValueError:
            raise UsageError(f"{name} is no number: {self._values[name]}") from None

    def integer(self, name: str, default: int | None = None) -> int | None:
        return int(self.number(name)) if name in self._values else default

    def seconds(self, name: str) -> float | None:
        return self.number(name) if name in self._values else None

    def flag(self, name: str) -> bool:
        return self._values.get(name, "0") not in ("0", "false", "")


def _sent(exchange: Operations, query: Query) -> Any:
    streams = {name: sent.as_dict() for name, sent in exchange.sent().items()}
    return {"final": exchange.final, "finished": exchange.finished, "streams": streams}


def _flood(exchange: Operations, query: Query) -> None:
    exchange.flood(query.text("stream"), query.number("rate"))


def _calm(exchange: Operations, query: Query) -> None:
    exchange.calm(query.maybe("stream"))


def _emit(exchange: Operations, query: Query) -> None:
    exchange.emit(query.text("stream"), query.integer("count", 1) or 0)


def _silence(exchange: Operations, query: Query) -> None:
    exchange.silence(query.text("stream"), everybody=query.flag("everybody"))


def _unsilence(exchange: Operations, query: Query) -> None:
    exchange.unsilence(query.text("stream"))


def _shutdown(exchange: Operations, query: Query) -> dict[str, int]:
    return {"sockets": exchange.shutdown_notice(query.maybe("stream"), query.seconds("close_after_s"))}


def _close(exchange: Operations, query: Query) -> dict[str, int]:
    code, reason = query.integer("code", 1001) or 1001, query.maybe("reason") or ""
    closed = exchange.close_sockets(query.maybe("stream"), code, reason, linger=query.flag("linger"))
    return {"sockets": closed}


def _refuse(exchange: Operations, query: Query) -> None:
    exchange.refuse(_how(query), query.integer("count"), query.integer("retry_after_s"))


def _how(query: Query) -> int | str:
    how = query.maybe("how") or "503"
    return how if how in (HANG, RESET) else query.integer("how", 503) or 503


def _accept(exchange: Operations, query: Query) -> None:
    exchange.accept()


def _skip(exchange: Operations, query: Query) -> None:
    exchange.skip(query.text("stream"), query.integer("count", 1) or 0)


def _refuse_rest(exchange: Operations, query: Query) -> None:
    exchange.refuse_rest(_how(query), query.integer("count"), query.integer("retry_after_s"))


def _accept_rest(exchange: Operations, query: Query) -> None:
    exchange.accept_rest()


def _inject(exchange: Operations, query: Query) -> dict[str, int]:
    payload = query.text("payload").encode()
    return {"sockets": exchange.inject(query.text("stream"), payload, raw=query.flag("raw"))}


def _start(exchange: Operations, query: Query) -> None:
    exchange.start_traffic()


async def _stop(exchange: Operations, query: Query) -> Any:
    await exchange.stop_traffic(query.seconds("within_s") or 10.0)
    return _sent(exchange, query)


_REPORTS: dict[str, Callable[[Operations, Query], Any]] = {
    "sent": _sent,
    "status": lambda exchange, query: exchange.status(),
}
_ACTIONS: dict[str, Callable[[Operations, Query], Any]] = {
    "flood": _flood,
    "calm": _calm,
    "emit": _emit,
    "silence": _silence,
    "unsilence": _unsilence,
    "shutdown": _shutdown,
    "close": _close,
    "refuse": _refuse,
    "accept": _accept,
    "skip": _skip,
    "refuse-rest": _refuse_rest,
    "accept-rest": _accept_rest,
    "inject": _inject,
    "start-traffic": _start,
    "stop-traffic": _stop,
}


async def answer(exchange: Operations, method: str, target: str) -> RestAnswer:
    """`target` is the request's path with its query."""
    parts = urlsplit(target)
    name = parts.path.removeprefix(PREFIX)
    wanted = _REPORTS if method == "GET" else _ACTIONS if method == "POST" else {}
    if name not in wanted:
        known = name in _REPORTS or name in _ACTIONS
        return _json(405 if known else 404, {"error": f"no {method} {parts.path}"})
    try:
        result = wanted[name](exchange, Query(parts.query))
        if isawaitable(result):
            result = await result
    except SluiceError as error:
        return _json(400, {"error": str(error)})
    _log.info("%s %s", method, target)
    return _json(200, {"ok": True} if result is None else result)


def _json(status: int, body: object) -> RestAnswer:
    return RestAnswer(status, orjson.dumps(body))
