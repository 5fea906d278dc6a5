"""Which stream kinds are simulated, and where their payloads come from.

Fields follow Binance's documentation of 2026, futures' `st`, `ps` and `nq` included; prices and quantities
are JSON strings, ids and times integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Protocol

import orjson

from relay.binance.streams import ALL_SYMBOLS, StreamKind, StreamSpec, Venue, parse_stream
from relay.errors import ConfigError
from simulator.depth import DepthChanges, PartialBooks
from simulator.market import Market, instrument
from simulator.order_book import Book, BookTickers
from simulator.statistics import ForceOrders, Klines, MarkPrices, MiniTickers, Tickers
from simulator.tape import AggTrades, BlockTrades, Tape, Trades

_K = StreamKind
_TAPES: dict[StreamKind, type[Trades] | type[AggTrades] | type[BlockTrades]] = {
    _K.TRADE: Trades,
    _K.AGG_TRADE: AggTrades,
    _K.BLOCK_TRADE: BlockTrades,
}
_BOOKS: dict[StreamKind, type[DepthChanges] | type[PartialBooks]] = {
    _K.DEPTH_DIFF: DepthChanges,
    _K.DEPTH_PARTIAL: PartialBooks,
}
_PLAIN: dict[StreamKind, Callable[[StreamSpec, Market, Random], Source]] = {
    _K.BOOK_TICKER: BookTickers,
    _K.TICKER: Tickers,
    _K.MINI_TICKER: MiniTickers,
    _K.MARK_PRICE: MarkPrices,
    _K.KLINE: Klines,
    _K.CONTINUOUS_KLINE: Klines,
    _K.FORCE_ORDER: ForceOrders,
}
TAPE_KINDS = frozenset(_TAPES)
SIMULATED_KINDS = frozenset({*_TAPES, *_BOOKS, *_PLAIN})
# The id that a kind's events carry, contiguous or merely rising; spot's partial books name it differently.
_ID_KEYS = {
    _K.TRADE: "t",
    _K.AGG_TRADE: "a",
    _K.BLOCK_TRADE: "t",
    _K.BOOK_TICKER: "u",
    _K.DEPTH_DIFF: "u",
    _K.DEPTH_PARTIAL: "u",
    _K.RPI_DEPTH: "u",
}


class Source(Protocol):
    """Makes the payloads of one stream, in order; `now_ms` becomes their times."""

    def make(self, count: int, now_ms: int) -> list[bytes]: ...


class Markets:
    """Every market of one exchange, and the sources that show them; both are made at first use."""

    def __init__(
        self, venue: Venue, symbols: Iterable[str], seed: int, id_offset: int = 0, history: int = 200_000
    ) -> None:
        self.venue = venue
        self.symbols = tuple(symbols)
        self._seed = seed
        self._id_offset = id_offset
        self._history = history
        self._markets: dict[str, Market] = {}
        self._books: dict[str, Book] = {}
        self.tapes: dict[str, Tape] = {}

    def symbol_of(self, spec: StreamSpec) -> str | None:
        """The listed symbol that `spec` shows, None if there is none."""
        if spec.kind is not StreamKind.CONTINUOUS_KLINE:
            return spec.symbol if spec.symbol in self.symbols else None
        pair = spec.symbol.partition("_")[0]
        return next((symbol for symbol in self.symbols if symbol.partition("_")[0] == pair), None)

    def shows(self, spec: StreamSpec) -> bool:
        return simulated(spec) and self.symbol_of(spec) is not None

    def source(self, spec: StreamSpec) -> Source:
        """A new source for a stream that this exchange shows."""
        symbol = self.symbol_of(spec)
        assert symbol is not None, spec.name
        market = self.market(symbol)
        random = Random(f"{self._seed}:{spec.key}")
        if (tape := _TAPES.get(spec.kind)) is not None:
            self.tapes[spec.name] = made = tape(spec, market, random, self._history)
            return made
        if (depth := _BOOKS.get(spec.kind)) is not None:
            return depth(spec, market, self.book(symbol), random)
        return _PLAIN[spec.kind](spec, market, random)

    def market(self, symbol: str) -> Market:
        if symbol not in self._markets:
            self._markets[symbol] = Market(instrument(self.venue, symbol), self._seed, self._id_offset)
        return self._markets[symbol]

    def book(self, symbol: str) -> Book:
        if symbol not in self._books:
            self._books[symbol] = Book(self.market(symbol), Random(f"{self._seed}:{symbol}:book"))
        return self._books[symbol]


def simulated(spec: StreamSpec) -> bool:
    return spec.kind in SIMULATED_KINDS and spec.symbol != ALL_SYMBOLS


def checked(venue: Venue, name: str) -> StreamSpec:
    """`parse_stream`, refusing as well what the simulated exchange cannot show."""
    spec = parse_stream(venue, name)
    if not simulated(spec):
        kinds = ", ".join(sorted(SIMULATED_KINDS))
        problem = f"the simulated exchange has no {name}"
        raise ConfigError("", problem, f"it has streams of one symbol of these kinds: {kinds}")
    return spec


def event_id(kind: StreamKind | None, payload: bytes) -> int | None:
    """The payload's own id; None for kinds without one."""
    key = _ID_KEYS.get(kind) if kind is not None else None
    if key is None:
        return None
    event = orjson.loads(payload)
    found = event.get(key, event.get("lastUpdateId"))
    return found if isinstance(found, int) else None
