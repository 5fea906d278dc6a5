"""One symbol's order book, and the `bookTicker` stream of its best prices."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from relay.binance.streams import StreamSpec, Venue
from simulator.market import TABLE_SIZE, Market, moves, quantities

# Levels lie within this many ticks of the best price; about half of the ticks have one.
_DEPTH_TICKS = 1500
_NEAR_TICKS = 60
# One change in a hundred sweeps the book: the recorded 99th percentile is ten times the mean.
_SWEEP_CHANCE, _SWEEP_LEVELS = 0.01, 300
_MIN_LEVELS, _MAX_LEVELS = 8, 40
_TYPICAL_STEPS = {Venue.SPOT: 5000, Venue.USDM: 200, Venue.COINM: 300}

Level = tuple[int, int]


class Changes(NamedTuple):
    """Levels that changed since the watcher last cleared this: price in ticks to quantity in steps, 0 for a
    removed level.
    """

    bids: dict[int, int]
    asks: dict[int, int]


class Book:
    """The levels of one market; every change is recorded for each watcher."""

    def __init__(self, market: Market, random: Random) -> None:
        self._market = market
        self._random = random
        self._bid = market.bid
        self._typical = _TYPICAL_STEPS[market.instrument.venue]
        self._sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self._watchers: list[Changes] = []
        for distance in range(0, _DEPTH_TICKS, 2):
            self._sides[0][market.bid - distance] = self._quantity()
            self._sides[1][market.bid + 1 + distance] = self._quantity()

    def watch(self) -> Changes:
        changes = Changes({}, {})
        self._watchers.append(changes)
        return changes

    def update(self) -> int:
        """Follow the market's best prices and change levels near them; returns how many levels were drawn."""
        sweep = self._random.random() < _SWEEP_CHANCE
        drawn = _SWEEP_LEVELS if sweep else self._random.randint(_MIN_LEVELS, _MAX_LEVELS)
        self._follow_best_prices()
        self._change_levels(drawn, _DEPTH_TICKS // 2 if sweep else _NEAR_TICKS)
        return drawn

    def top(self, count: int) -> tuple[list[Level], list[Level]]:
        """The best `count` bids and asks, best first."""
        bids, asks = self._sides
        return sorted(bids.items(), reverse=True)[:count], sorted(asks.items())[:count]

    def nearest(self, count: int) -> tuple[list[Level], list[Level]]:
        """As `top`; faster for few levels, because it walks from the best price and does not sort."""
        return self._walk(0, self._bid, -1, count), self._walk(1, self._bid + 1, 1, count)

    def _walk(self, side: int, start: int, step: int, count: int) -> list[Level]:
        levels = self._sides[side]
        found: list[Level] = []
        for price in range(start, start + step * _DEPTH_TICKS, step):
            if price in levels:
                found.append((price, levels[price]))
                if len(found) == count:
                    break
        return found

    def _follow_best_prices(self) -> None:
        old, new = self._bid, self._market.bid
        self._bid = new
        low, high = min(old, new), max(old, new)
        crossed, left = (1, 0) if new > old else (0, 1)
        for price in range(low, high + 2):
            on_wrong_side = price <= new if crossed else price > new
            if on_wrong_side and price in self._sides[crossed]:
                self._set(crossed, price, 0)
            elif on_wrong_side and self._random.random() < 0.5:
                self._set(left, price, self._quantity())
        self._set(0, new, self._market.bid_steps)
        self._set(1, new + 1, self._market.ask_steps)

    def _change_levels(self, count: int, reach: int) -> None:
        draw = self._random.random
        for _ in range(count):
            side = draw() < 0.5
            distance = 1 + int(draw() * reach)
            price = self._bid + 1 + distance if side else self._bid - distance
            removed = price in self._sides[side] and draw() < 0.45
            self._set(side, price, 0 if removed else self._quantity())

    def _set(self, side: int, price: int, steps: int) -> None:
        if steps:
            self._sides[side][price] = steps
        else:
            del self._sides[side][price]
        for watcher in self._watchers:
            watcher[side][price] = steps

    def _quantity(self) -> int:
        return min(int(self._random.paretovariate(1.1) * self._typical / 20) + 1, self._typical * 100)


def levels_json(market: Market, levels: list[Level]) -> bytes:
    prices, texts = market.prices, market.quantities
    return b"[%b]" % b",".join([b'["%b","%b"]' % (prices[price], texts[steps]) for price, steps in levels])


class UpdateIds:
    """Draws the steps between a market's update ids.

    On USD-M and COIN-M all symbols share one sequence, so consecutive ids of one symbol lie far apart; a spot
    symbol has a sequence of its own.
    """

    # A futures event's `U` lies at most this far above the previous `u`; every step between two `u` is
    # larger.
    MAX_FIRST_ID_STEP = 18

    def __init__(self, market: Market, random: Random) -> None:
        self.market = market
        spot = market.instrument.venue is Venue.SPOT
        self.steps = [
            (1 if random.random() < 0.35 else random.randint(2, 14)) if spot else random.randint(20, 2000)
            for _ in range(TABLE_SIZE)
        ]
        self.at = 0

    def advance(self) -> int:
        self.market.update_id += self.steps[self.at]
        self.at = (self.at + 1) % TABLE_SIZE
        return self.market.update_id


class BookTickers:
    """`<symbol>@bookTicker`: the best bid and ask with a rising update id."""

    def __init__(self, spec: StreamSpec, market: Market, random: Random) -> None:
        self._market = market
        typical = _TYPICAL_STEPS[market.instrument.venue]
        self._draws = list(
            zip(
                moves(random, 0.1, 4),
                quantities(random, typical),
                quantities(random, typical),
                UpdateIds(market, random).steps,
                strict=True,
            )
        )
        self._at = 0

    def make(self, count: int, now_ms: int) -> list[bytes]:
        market, draws, at = self._market, self._draws, self._at
        head, tail = _ticker_form(market, now_ms)
        prices, texts = market.prices, market.quantities
        bid, update_id = market.bid, market.update_id
        made = []
        for _ in range(count):
            move, bid_steps, ask_steps, step = draws[at]
            at = (at + 1) & (TABLE_SIZE - 1)
            bid += move
            update_id += step
            best = (prices[bid], texts[bid_steps], prices[bid + 1], texts[ask_steps])
            made.append(head % (update_id, *best) + tail)
        self._at, market.bid, market.update_id = at, bid, update_id
        market.bid_steps, market.ask_steps = bid_steps, ask_steps
        return made


def _ticker_form(market: Market, now_ms: int) -> tuple[bytes, bytes]:
    """A template for id, bid, quantity, ask, quantity, and the payload's end."""
    of = market.instrument
    best = b'"b":"%b","B":"%b","a":"%b","A":"%b"'
    if of.venue is Venue.SPOT:
        return b'{"u":%d,"s":"' + of.name.replace(b"%", b"%%") + b'",' + best, b"}"
    names = b'"s":"%b","ps":"%b",' % (of.name, of.pair)
    tail = b',"T":%d,"E":%d,"st":%d}' % (now_ms, now_ms, 1 if of.venue is Venue.USDM else 2)
    lead = b'{"e":"bookTicker","u":%d,' if of.venue is Venue.USDM else b'{"u":%d,"e":"bookTicker",'
    return lead + names.replace(b"%", b"%%") + best, tail
