"""The streams that each venue has, by Binance's documentation of 2026, and what to suggest for unknown names.

A name outside the table is refused: Binance acknowledges an unknown stream and then stays silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from enum import StrEnum
from typing import NamedTuple


class Venue(StrEnum):
    SPOT = "spot"
    USDM = "usdm"
    COINM = "coinm"


class StreamKind(StrEnum):
    TRADE = "trade"
    AGG_TRADE = "agg_trade"
    BLOCK_TRADE = "block_trade"
    DEPTH_DIFF = "depth_diff"
    DEPTH_PARTIAL = "depth_partial"
    RPI_DEPTH = "rpi_depth"
    BOOK_TICKER = "book_ticker"
    TICKER = "ticker"
    MINI_TICKER = "mini_ticker"
    WINDOW_TICKER = "window_ticker"
    AVG_PRICE = "avg_price"
    REFERENCE_PRICE = "reference_price"
    MARK_PRICE = "mark_price"
    INDEX_PRICE = "index_price"
    KLINE = "kline"
    CONTINUOUS_KLINE = "continuous_kline"
    INDEX_PRICE_KLINE = "index_price_kline"
    MARK_PRICE_KLINE = "mark_price_kline"
    FORCE_ORDER = "force_order"
    CONTRACT_INFO = "contract_info"
    COMPOSITE_INDEX = "composite_index"
    ASSET_INDEX = "asset_index"
    TRADING_SESSION = "trading_session"


_K = StreamKind


class StreamRow(NamedTuple):
    """Streams of one kind; `route` matters on USD-M alone; `{i}` stands for every kline interval."""

    venues: tuple[Venue, ...]
    names: tuple[str, ...]
    kind: StreamKind
    event_type: str
    route: str
    silence_limit_s: float | None
    array: bool = False


_S, _U, _C = (Venue.SPOT,), (Venue.USDM,), (Venue.COINM,)
_UC, _SUC = _U + _C, _S + _U + _C
_PUBLIC, _MARKET = "public", "market"
_FUTURES_PARTIAL = tuple(f"depth{n}{speed}" for n in (5, 10, 20) for speed in ("", "@500ms", "@100ms"))
_SPOT_PARTIAL = tuple(f"depth{n}{speed}" for n in (5, 10, 20) for speed in ("", "@100ms"))
_INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")

_ROWS = (
    # USD-M's trade stream is undocumented; it flows on /public alone.
    StreamRow(_SUC, ("trade",), _K.TRADE, "trade", _PUBLIC, 30),
    StreamRow(_SUC, ("aggTrade",), _K.AGG_TRADE, "aggTrade", _MARKET, 30),
    StreamRow(_S, ("blockTrade",), _K.BLOCK_TRADE, "blockTrade", "", None),
    StreamRow(_S, ("depth@100ms",), _K.DEPTH_DIFF, "depthUpdate", "", 2),
    StreamRow(_S, ("depth",), _K.DEPTH_DIFF, "depthUpdate", "", 5),
    StreamRow(
        _UC, ("depth", "depth@500ms", "depth@100ms", "depth@0ms"), _K.DEPTH_DIFF, "depthUpdate", _PUBLIC, 2
    ),
    StreamRow(_S, _SPOT_PARTIAL, _K.DEPTH_PARTIAL, "", "", 2),
    StreamRow(_UC, _FUTURES_PARTIAL, _K.DEPTH_PARTIAL, "depthUpdate", _PUBLIC, 2),
    StreamRow(_U, ("rpiDepth@500ms",), _K.RPI_DEPTH, "depthUpdate", _PUBLIC, 30),
    StreamRow(_S, ("bookTicker",), _K.BOOK_TICKER, "", "", 10),
    StreamRow(_UC, ("bookTicker",), _K.BOOK_TICKER, "bookTicker", _PUBLIC, 10),
    StreamRow(_UC, ("!bookTicker",), _K.BOOK_TICKER, "bookTicker", _PUBLIC, 30),
    StreamRow(_SUC, ("ticker",), _K.TICKER, "24hrTicker", _MARKET, 30),
    StreamRow(_UC, ("!ticker@arr",), _K.TICKER, "24hrTicker", _MARKET, 30, True),
    StreamRow(_SUC, ("miniTicker",), _K.MINI_TICKER, "24hrMiniTicker", _MARKET, 30),
    StreamRow(_SUC, ("!miniTicker@arr",), _K.MINI_TICKER, "24hrMiniTicker", _MARKET, 30, True),
    StreamRow(_S, ("ticker_1h",), _K.WINDOW_TICKER, "1hTicker", "", 30),
    StreamRow(_S, ("ticker_4h",), _K.WINDOW_TICKER, "4hTicker", "", 30),
    StreamRow(_S, ("ticker_1d",), _K.WINDOW_TICKER, "1dTicker", "", 30),
    StreamRow(_S, ("!ticker_1h@arr",), _K.WINDOW_TICKER, "1hTicker", "", 30, True),
    StreamRow(_S, ("!ticker_4h@arr",), _K.WINDOW_TICKER, "4hTicker", "", 30, True),
    StreamRow(_S, ("!ticker_1d@arr",), _K.WINDOW_TICKER, "1dTicker", "", 30, True),
    StreamRow(_S, ("avgPrice",), _K.AVG_PRICE, "avgPrice", "", 30),
    StreamRow(_S, ("referencePrice",), _K.REFERENCE_PRICE, "referencePrice", "", 30),
    StreamRow(_UC, ("markPrice@1s",), _K.MARK_PRICE, "markPriceUpdate", _MARKET, 5),
    StreamRow(_UC, ("markPrice",), _K.MARK_PRICE, "markPriceUpdate", _MARKET, 10),
    StreamRow(_UC, ("!markPrice@arr@1s",), _K.MARK_PRICE, "markPriceUpdate", _MARKET, 5, True),
    StreamRow(_UC, ("!markPrice@arr",), _K.MARK_PRICE, "markPriceUpdate", _MARKET, 10, True),
    # Two event types are in use, indexPriceUpdate in the documentation and IndexUpdate on the wire.
    StreamRow(_C, ("indexPrice",), _K.INDEX_PRICE, "", "", 10),
    StreamRow(_S, ("kline_1s", "kline_1s@+08:00"), _K.KLINE, "kline", "", 30),
    StreamRow(_S, ("kline_{i}", "kline_{i}@+08:00"), _K.KLINE, "kline", "", 60),
    StreamRow(_UC, ("kline_{i}",), _K.KLINE, "kline", _MARKET, 60),
    StreamRow(_UC, ("continuousKline_{i}",), _K.CONTINUOUS_KLINE, "continuous_kline", _MARKET, 60),
    StreamRow(_C, ("indexPriceKline_{i}",), _K.INDEX_PRICE_KLINE, "indexPrice_kline", "", 60),
    StreamRow(_C, ("markPriceKline_{i}",), _K.MARK_PRICE_KLINE, "markPrice_kline", "", 60),
    # Liquidations, listings and block trades may stay away for days.
    StreamRow(_UC, ("forceOrder", "!forceOrder@arr"), _K.FORCE_ORDER, "forceOrder", _MARKET, None),
    StreamRow(_UC, ("!contractInfo",), _K.CONTRACT_INFO, "contractInfo", _MARKET, None),
    StreamRow(_U, ("compositeIndex",), _K.COMPOSITE_INDEX, "compositeIndex", _MARKET, 10),
    StreamRow(_U, ("assetIndex",), _K.ASSET_INDEX, "assetIndexUpdate", _MARKET, 10),
    StreamRow(_U, ("!assetIndex@arr",), _K.ASSET_INDEX, "assetIndexUpdate", _MARKET, 10, True),
    # One event type for each kind of session.
    StreamRow(_U, ("tradingSession",), _K.TRADING_SESSION, "", _MARKET, 10),
)


def _spelled_out(row: StreamRow) -> Iterator[str]:
    for name in row.names:
        yield from (name.format(i=interval) for interval in _INTERVALS) if "{" in name else (name,)


_FORMS = {
    venue: {name: row for row in _ROWS if venue in row.venues for name in _spelled_out(row)}
    for venue in Venue
}
SYMBOLLESS = {
    venue: {name: row for name, row in forms.items() if name.startswith("!") or name == "tradingSession"}
    for venue, forms in _FORMS.items()
}
# By what follows the symbol and its `@`.
WITH_SYMBOL = {
    venue: {name: row for name, row in forms.items() if name not in SYMBOLLESS[venue]}
    for venue, forms in _FORMS.items()
}
_SUGGESTIONS = {
    (Venue.SPOT, "!bookTicker"): "Binance ended it in 2022; list <symbol>@bookTicker for each symbol",
    (Venue.SPOT, "!ticker@arr"): "Binance ended it in 2026; write !miniTicker@arr or !ticker_1h@arr",
    (Venue.COINM, "indexPrice@1s"): "Binance ended it in 2026; write <pair>@indexPrice",
}


def suggestion(venue: Venue, name: str, symbol: str, form: str) -> str:
    """What to write instead of an unknown stream, the surest advice first."""
    example = "btcusd_perp" if venue is Venue.COINM else "btcusdt"
    if "fundingrate" in name.lower():
        advice = f"write {symbol if form.startswith('funding') else example}@markPrice@1s"
        advice += ", with venue usdm" if venue is Venue.SPOT else ""
        return f"markPrice carries the funding rate (r) and the next funding time (T): {advice}"
    if name in WITH_SYMBOL[venue] or (not symbol and form in WITH_SYMBOL[venue]):
        return f"name the symbol too: write {example}@{form or name}"
    known = _SUGGESTIONS.get((venue, name)) or _SUGGESTIONS.get((venue, form))
    near = _other_venue(name, form) or _nearest(venue, name, symbol or example, form)
    return known or near or f"write <symbol>@<channel>, such as {example}@trade"


def _other_venue(name: str, form: str) -> str:
    venues = [venue.value for venue in Venue if name in SYMBOLLESS[venue] or form in WITH_SYMBOL[venue]]
    return f"it is one of {' and '.join(venues)}: set venue to {venues[0]}" if venues else ""


def _nearest(venue: Venue, name: str, symbol: str, form: str) -> str:
    """Letter case counts for nothing here: Binance's own is easily mistyped."""
    if name.startswith("!"):
        spellings = {known.lower(): known for known in SYMBOLLESS[venue]}
        wrong = name
    else:
        # Of kline_1m and kline_1M the first, the likelier one, is to be offered.
        spellings = {known.lower(): f"{symbol}@{known}" for known in reversed(WITH_SYMBOL[venue])}
        wrong = form
    near = get_close_matches(wrong.lower()[:80], spellings, n=1)
    return f"write {spellings[near[0]]}" if near else ""
