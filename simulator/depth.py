"""Depth streams and the depth snapshot, which together make one consistent local book."""

from __future__ import annotations

from random import Random

from relay.binance.streams import StreamSpec, Venue
from simulator.market import Market
from simulator.order_book import Book, Changes, UpdateIds, levels_json


class _Depth:
    """What both kinds of depth stream share: the market's book, its update ids, and the last `u` of this
    stream.
    """

    def __init__(self, spec: StreamSpec, market: Market, book: Book, random: Random) -> None:
        self._market = market
        self._book = book
        self._random = random
        self._ids = UpdateIds(market, random)
        self._last_u = market.update_id

    def _change(self) -> None:
        self._book.update()
        self._ids.advance()

    def _head(self, now_ms: int) -> bytes:
        """The payload up to the levels. The next event of this stream will name the market's present update
        id.
        """
        of, before, last = self._market.instrument, self._last_u, self._market.update_id
        self._last_u = last
        if of.venue is Venue.SPOT:
            ids = b'"U":%d,"u":%d' % (before + 1, last)
            return b'{"e":"depthUpdate","E":%d,"s":"%b",%b' % (now_ms, of.name, ids)
        first = before + self._random.randint(1, UpdateIds.MAX_FIRST_ID_STEP)
        ids = b'"U":%d,"u":%d,"pu":%d' % (first, last, before)
        names = b'"s":"%b","ps":"%b"' % (of.name, of.pair)
        return b'{"e":"depthUpdate","E":%d,"T":%d,%b,%b' % (now_ms, now_ms, names, ids)

    def _tail(self) -> bytes:
        return {Venue.SPOT: b"}", Venue.USDM: b',"st":1}', Venue.COINM: b',"st":2}'}[
            self._market.instrument.venue
        ]


class DepthChanges(_Depth):
    """`<symbol>@depth...`: every level that changed since the previous event."""

    def __init__(self, spec: StreamSpec, market: Market, book: Book, random: Random) -> None:
        super().__init__(spec, market, book, random)
        self._changes: Changes = book.watch()

    def make(self, count: int, now_ms: int) -> list[bytes]:
        return [self._event(now_ms) for _ in range(count)]

    def _event(self, now_ms: int) -> bytes:
        self._change()
        bids, asks = (levels_json(self._market, list(side.items())) for side in self._changes)
        for side in self._changes:
            side.clear()
        return b'%b,"b":%b,"a":%b%b' % (self._head(now_ms), bids, asks, self._tail())


class PartialBooks(_Depth):
    """`<symbol>@depth5...`: the best levels; on spot without type, time or symbol."""

    def __init__(self, spec: StreamSpec, market: Market, book: Book, random: Random) -> None:
        super().__init__(spec, market, book, random)
        self._levels = int(spec.channel.removeprefix("depth").partition("_")[0])

    def make(self, count: int, now_ms: int) -> list[bytes]:
        return [self._event(now_ms) for _ in range(count)]

    def _event(self, now_ms: int) -> bytes:
        self._change()
        bids, asks = (levels_json(self._market, side) for side in self._book.nearest(self._levels))
        if self._market.instrument.venue is Venue.SPOT:
            return b'{"lastUpdateId":%d,"bids":%b,"asks":%b}' % (self._market.update_id, bids, asks)
        return b'%b,"b":%b,"a":%b%b' % (self._head(now_ms), bids, asks, self._tail())


def snapshot(market: Market, book: Book, limit: int, now_ms: int) -> bytes:
    """The answer to REST's `depth`; a depth stream's next event continues its `lastUpdateId`."""
    bids, asks = (levels_json(market, side) for side in book.top(limit))
    times = b"" if market.instrument.venue is Venue.SPOT else b',"E":%d,"T":%d' % (now_ms, now_ms)
    return b'{"lastUpdateId":%d%b,"bids":%b,"asks":%b}' % (market.update_id, times, bids, asks)
