"""Trades, aggregated trades and block trades: contiguous ids, a bounded history for REST."""

from __future__ import annotations

from collections import deque
from itertools import islice
from random import Random
from typing import NamedTuple

from relay.binance.streams import StreamSpec, Venue
from simulator.market import TABLE_SIZE, Market, moves, quantities

_MASK = TABLE_SIZE - 1
_TYPICAL_STEPS = {Venue.SPOT: 200, Venue.USDM: 4, Venue.COINM: 3}


class _Print(NamedTuple):
    """One drawn trade: the move before it, its quantity, and whether a seller took the bid (0) or a buyer the
    ask (1)."""

    move: int
    steps: int
    text: bytes
    at_ask: int


def _prints(random: Random, market: Market) -> list[_Print]:
    sizes = quantities(random, _TYPICAL_STEPS[market.instrument.venue])
    walk = moves(random, 0.12, 6)
    texts = market.quantities
    return [
        _Print(move, steps, texts[steps], random.randrange(2))
        for move, steps in zip(walk, sizes, strict=True)
    ]


class Tape:
    """Makes the trades of one stream; `history` holds the newest of them, with contiguous ids."""

    def __init__(self, spec: StreamSpec, market: Market, random: Random, keep: int) -> None:
        self.history: deque[bytes] = deque(maxlen=keep)
        self.next_id = 0
        self._market = market
        self._draws = _prints(random, market)
        self._at = 0

    def after(self, from_id: int, limit: int) -> list[bytes]:
        """At most `limit` payloads from `from_id` on; older ones than the history has are left out."""
        first = self.next_id - len(self.history)
        start = max(from_id - first, 0)
        return list(islice(self.history, start, start + limit))

    def newest(self, limit: int) -> list[bytes]:
        return self.after(self.next_id - limit, limit)

    def _draw_trades(self, count: int) -> list[tuple[bytes, bytes, int]]:
        """The next `count` trades as price, quantity and side; moves the market."""
        market, draws, at = self._market, self._draws, self._at
        bid, texts = market.bid, market.prices
        high, low, volume, quote = bid, bid, 0, 0
        taken = []
        for _ in range(count):
            move, steps, text, at_ask = draws[at]
            at = (at + 1) & _MASK
            bid += move
            price = bid + at_ask
            volume += steps
            quote += steps * price
            if price > high:
                high = price
            elif price < low:
                low = price
            taken.append((texts[price], text, at_ask))
        self._at, market.bid = at, bid
        market.record(price, steps, high, low, count, volume, quote)
        return taken


class Trades(Tape):
    """`<symbol>@trade`; its ids are the market's trade ids."""

    def __init__(self, spec: StreamSpec, market: Market, random: Random, keep: int) -> None:
        super().__init__(spec, market, random, keep)
        market.has_tape = True
        self.next_id = market.next_trade_id

    def make(self, count: int, now_ms: int) -> list[bytes]:
        head, tails = _trade_head(self._market, now_ms), _tails(self._market, now_ms, "trade")
        first = self.next_id
        made = [
            b'%b"t":%d,"p":"%b","q":"%b",%b' % (head, number, price, text, tails[at_ask])
            for number, (price, text, at_ask) in enumerate(self._draw_trades(count), first)
        ]
        self.next_id = self._market.next_trade_id = first + count
        self.history.extend(made)
        return made


class BlockTrades(Tape):
    """`<symbol>@blockTrade` of spot: ids in a space of its own."""

    def __init__(self, spec: StreamSpec, market: Market, random: Random, keep: int) -> None:
        super().__init__(spec, market, random, keep)
        self.next_id = market.next_agg_id // 1000

    def make(self, count: int, now_ms: int) -> list[bytes]:
        head = b'{"e":"blockTrade","E":%d,"s":"%b"' % (now_ms, self._market.instrument.name)
        tails = _tails(self._market, now_ms, "block")
        made = [
            b'%b,"t":%d,"p":"%b","q":"%b",%b' % (head, number, price, text, tails[at_ask])
            for number, (price, text, at_ask) in enumerate(self._draw_trades(count), self.next_id)
        ]
        self.next_id += count
        self.history.extend(made)
        return made


class AggTrades(Tape):
    """`<symbol>@aggTrade`; `f` and `l` count the trades that it stands for, apart from those of `@trade`."""

    def __init__(self, spec: StreamSpec, market: Market, random: Random, keep: int) -> None:
        super().__init__(spec, market, random, keep)
        self.next_id = market.next_agg_id
        self._next_trade = market.next_trade_id

    def make(self, count: int, now_ms: int) -> list[bytes]:
        head, tails = _agg_head(self._market, now_ms), _tails(self._market, now_ms, "agg")
        futures = self._market.instrument.venue is not Venue.SPOT
        made = []
        for number, (price, text, at_ask) in enumerate(self._draw_trades(count), self.next_id):
            first = self._next_trade
            self._next_trade = first + 1 + number % 3
            # `nq` leaves out orders that only members of a programme may meet; there are none here.
            normal = b'"nq":"%b",' % text if futures else b""
            made.append(
                b'%b"a":%d,"p":"%b","q":"%b",%b"f":%d,"l":%d,%b'
                % (head, number, price, text, normal, first, self._next_trade - 1, tails[at_ask])
            )
        self.next_id += count
        self.history.extend(made)
        return made


def _trade_head(market: Market, now_ms: int) -> bytes:
    of = market.instrument
    if of.venue is Venue.SPOT:
        return b'{"e":"trade","E":%d,"s":"%b",' % (now_ms, of.name)
    pair = b'"ps":"%b",' % of.pair if of.venue is Venue.COINM else b""
    return b'{"e":"trade","E":%d,"T":%d,"s":"%b",%b' % (now_ms, now_ms, of.name, pair)


def _agg_head(market: Market, now_ms: int) -> bytes:
    of = market.instrument
    pair = b'"ps":"%b",' % of.pair if of.venue is Venue.COINM else b""
    return b'{"e":"aggTrade","E":%d,"s":"%b",%b' % (now_ms, of.name, pair)


# How the payload ends, after the quantity or the trade range; `m` is true when the buyer was the maker.
_TAILS = {
    ("trade", Venue.SPOT): b'"T":%d,"m":%b,"M":true}',
    ("trade", Venue.USDM): b'"X":"MARKET","m":%b}',
    ("trade", Venue.COINM): b'"X":"MARKET","m":%b}',
    ("block", Venue.SPOT): b'"T":%d,"m":%b}',
    ("agg", Venue.SPOT): b'"T":%d,"m":%b,"M":true}',
    ("agg", Venue.USDM): b'"T":%d,"m":%b,"st":1}',
    ("agg", Venue.COINM): b'"T":%d,"m":%b,"st":2}',
}


def _tails(market: Market, now_ms: int, form: str) -> tuple[bytes, bytes]:
    """The endings of a trade at the bid and of one at the ask."""
    tail = _TAILS[form, market.instrument.venue]
    if b"%d" in tail:
        return tail % (now_ms, b"true"), tail % (now_ms, b"false")
    return tail % b"true", tail % b"false"
