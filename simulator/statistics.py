"""Streams of statistics of a market: tickers, klines, the mark price and liquidations."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from relay.binance.streams import StreamSpec, Venue
from simulator.market import Market, fixed

_DAY_MS = 86_400_000
_FUNDING_MS = 8 * 3_600_000
_UNITS_MS = {
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": _DAY_MS,
    "w": 7 * _DAY_MS,
    # Months are 30 days here; only the bar's length depends on it.
    "M": 30 * _DAY_MS,
}


class Tickers:
    """`<symbol>@ticker`: the last 24 hours."""

    def __init__(self, spec: StreamSpec, market: Market, random: Random) -> None:
        self._market = market

    def make(self, count: int, now_ms: int) -> list[bytes]:
        return [self._event(now_ms) for _ in range(count)]

    def _event(self, now_ms: int) -> bytes:
        market = self._market
        market.drift()
        of = market.instrument
        head = b'{"e":"24hrTicker","E":%d,"s":"%b"' % (now_ms, of.name)
        spot = of.venue is Venue.SPOT
        pair = b"" if spot else b',"ps":"%b"' % of.pair
        parts = (
            head,
            pair,
            self._prices(),
            self._best() if spot else b"",
            self._totals(now_ms),
            _end(of.venue),
        )
        return b"".join(parts)

    def _prices(self) -> bytes:
        of, day = self._market.instrument, self._market.day
        change = day.last - day.open
        sign = b"-" if change < 0 else b""
        percent = fixed(round(change * 100_000 / day.open), 3)
        average = of.price(day.quote // day.volume)
        last = (of.price(day.last), of.quantity(day.last_quantity))
        return b',"p":"%b%b","P":"%b","w":"%b","c":"%b","Q":"%b"' % (
            sign,
            of.price(abs(change)),
            percent,
            average,
            *last,
        )

    def _best(self) -> bytes:
        market, of = self._market, self._market.instrument
        bid = (of.price(market.bid), of.quantity(market.bid_steps))
        ask = (of.price(market.bid + 1), of.quantity(market.ask_steps))
        return b',"x":"%b","b":"%b","B":"%b","a":"%b","A":"%b"' % (of.price(market.open), *bid, *ask)

    def _totals(self, now_ms: int) -> bytes:
        of, day = self._market.instrument, self._market.day
        prices = (of.price(day.open), of.price(day.high), of.price(day.low))
        sums = (of.quantity(day.volume), of.amount(day.quote))
        ids = (day.next_trade_id - day.trades, day.next_trade_id - 1, day.trades)
        form = b',"o":"%b","h":"%b","l":"%b","v":"%b","q":"%b","O":%d,"C":%d,"F":%d,"L":%d,"n":%d'
        return form % (*prices, *sums, now_ms - _DAY_MS, now_ms, *ids)


class MiniTickers:
    """`<symbol>@miniTicker`: the last 24 hours in short."""

    def __init__(self, spec: StreamSpec, market: Market, random: Random) -> None:
        self._market = market

    def make(self, count: int, now_ms: int) -> list[bytes]:
        return [self._event(now_ms) for _ in range(count)]

    def _event(self, now_ms: int) -> bytes:
        self._market.drift()
        of, day = self._market.instrument, self._market.day
        prices = (of.price(day.last), of.price(day.open), of.price(day.high), of.price(day.low))
        form = (
            b'{"e":"24hrMiniTicker","E":%d,"s":"%b","c":"%b","o":"%b","h":"%b","l":"%b","v":"%b","q":"%b"%b%b'
        )
        pair = b"" if of.venue is Venue.SPOT else b',"ps":"%b"' % of.pair
        sums = (of.quantity(day.volume), of.amount(day.quote))
        return form % (now_ms, of.name, *prices, *sums, pair, _end(of.venue))


class MarkPrices:
    """`<symbol>@markPrice`: mark and index near the last price, the funding rate and its next time."""

    def __init__(self, spec: StreamSpec, market: Market, random: Random) -> None:
        self._market = market
        self._random = random
        self._rate = random.randint(-5000, 15000)

    def make(self, count: int, now_ms: int) -> list[bytes]:
        return [self._event(now_ms) for _ in range(count)]

    def _event(self, now_ms: int) -> bytes:
        market = self._market
        market.drift()
        of = market.instrument
        self._rate = max(-75_000, min(75_000, self._rate + self._random.randint(-20, 20)))
        mark, settle, index, average = (self._near() for _ in range(4))
        pair = b',"ps":"%b"' % of.pair if of.venue is Venue.COINM else b""
        head = b'{"e":"markPriceUpdate","E":%d,"s":"%b"%b' % (now_ms, of.name, pair)
        prices = b',"p":"%b","i":"%b","P":"%b","r":"%b","ap":"%b"' % (
            mark,
            index,
            settle,
            fixed(self._rate, 8),
            average,
        )
        due = (now_ms // _FUNDING_MS + 1) * _FUNDING_MS
        return b'%b%b,"T":%d%b' % (head, prices, due, _end(of.venue))

    def _near(self) -> bytes:
        """A price of eight decimals within a few ticks of the bid."""
        of = self._market.instrument
        units = self._market.bid * of.tick_units * 10 ** (8 - of.price_decimals)
        tick = of.tick_units * 10 ** (8 - of.price_decimals)
        return fixed(units + self._random.randint(-5 * tick, 5 * tick), 8)


class ForceOrders:
    """`<symbol>@forceOrder`: one filled liquidation."""

    def __init__(self, spec: StreamSpec, market: Market, random: Random) -> None:
        self._market = market
        self._random = random

    def make(self, count: int, now_ms: int) -> list[bytes]:
        return [self._event(now_ms) for _ in range(count)]

    def _event(self, now_ms: int) -> bytes:
        market, of = self._market, self._market.instrument
        side, price = self._random.choice(((b"SELL", market.bid), (b"BUY", market.bid + 1)))
        quantity = of.quantity(self._random.randint(1, 5000))
        order = b'"s":"%b","S":"%b","o":"LIMIT","f":"IOC","q":"%b","p":"%b","ap":"%b","X":"FILLED"' % (
            of.name,
            side,
            quantity,
            of.price(price),
            of.price(price),
        )
        filled = b'"l":"%b","z":"%b","T":%d' % (quantity, quantity, now_ms)
        form = b'{"e":"forceOrder","E":%d,"o":{%b,%b},"ps":"%b"%b'
        return form % (now_ms, order, filled, of.pair, _end(of.venue))


@dataclass(slots=True)
class _Bar:
    """One kline being built; totals are the market's at its opening."""

    start_ms: int
    open: int
    high: int
    low: int
    first_trade_id: int
    volume: int
    quote: int


class Klines:
    """`<symbol>@kline_<i>` and `<pair>_<type>@continuousKline_<i>`: each bar ends with one event whose `x`
    is true.
    """

    def __init__(self, spec: StreamSpec, market: Market, random: Random) -> None:
        self._market = market
        self._interval = spec.interval.encode()
        self._length_ms = int(spec.interval[:-1]) * _UNITS_MS[spec.interval[-1]]
        # `btcusdt_current_quarter` names a pair and a contract type; a plain kline has no use for it.
        pair, _, contract = spec.symbol.partition("_")
        self._pair, self._contract = pair.upper().encode(), contract.upper().encode()
        self._continuous = "continuousKline" in spec.channel
        self._bar: _Bar | None = None

    def make(self, count: int, now_ms: int) -> list[bytes]:
        return [self._event(now_ms) for _ in range(count)]

    def _event(self, now_ms: int) -> bytes:
        self._market.drift()
        start = now_ms - now_ms % self._length_ms
        closing = self._bar is not None and self._bar.start_ms != start
        bar = self._bar or self._opened(start)
        self._bar = self._opened(start) if closing else bar
        bar.high, bar.low = max(bar.high, self._market.last), min(bar.low, self._market.last)
        return self._named(now_ms) + self._told(bar, closing)

    def _opened(self, start_ms: int) -> _Bar:
        last, day = self._market.last, self._market.day
        return _Bar(start_ms, last, last, last, day.next_trade_id, day.volume, day.quote)

    def _named(self, now_ms: int) -> bytes:
        if self._continuous:
            form = b'{"e":"continuous_kline","E":%d,"ps":"%b","ct":"%b","k":{'
            return form % (now_ms, self._pair, self._contract)
        of = self._market.instrument
        pair = b',"ps":"%b"' % of.pair if of.venue is Venue.COINM else b""
        return b'{"e":"kline","E":%d,"s":"%b"%b,"k":{' % (now_ms, of.name, pair)

    def _told(self, bar: _Bar, closed: bool) -> bytes:
        of, day = self._market.instrument, self._market.day
        trades, volume, quote = (
            day.next_trade_id - bar.first_trade_id,
            day.volume - bar.volume,
            day.quote - bar.quote,
        )
        # Binance writes -1 for a bar without trades.
        ids = (bar.first_trade_id, day.next_trade_id - 1) if trades else (-1, -1)
        name = b"" if self._continuous else b',"s":"%b"' % of.name
        times = b'"t":%d,"T":%d%b,"i":"%b"' % (
            bar.start_ms,
            bar.start_ms + self._length_ms - 1,
            name,
            self._interval,
        )
        prices = b'"f":%d,"L":%d,"o":"%b","c":"%b","h":"%b","l":"%b"' % (
            *ids,
            of.price(bar.open),
            of.price(self._market.last),
            of.price(bar.high),
            of.price(bar.low),
        )
        sums = b'"v":"%b","n":%d,"x":%b,"q":"%b","V":"%b","Q":"%b","B":"0"' % (
            of.quantity(volume),
            trades,
            b"true" if closed else b"false",
            of.amount(quote),
            of.quantity(volume // 2),
            of.amount(quote // 2),
        )
        return b"%b,%b,%b}}" % (times, prices, sums)


def _end(venue: Venue) -> bytes:
    return {Venue.SPOT: b"}", Venue.USDM: b',"st":1}', Venue.COINM: b',"st":2}'}[venue]
