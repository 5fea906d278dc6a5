"""One symbol's market: the prices, quantities and ids that all its streams share."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple
from zlib import crc32

from relay.binance.streams import Venue

# Prices in the recorded frames of August 2024; other symbols get a price from a hash of their name.
_START_PRICES = {"btc": 61_700.0, "eth": 2_680.0}
_SPOT_DECIMALS = 8
# Random draws repeat after this many, and their price moves add up to zero, so that a price stays near its
# start however long the exchange runs.
TABLE_SIZE = 4096
_DAY_TRADES = 3_000_000
_DAY_QUANTITY_STEPS = 250_000_000
# Trade and update ids near those of the recorded frames.
_FIRST_IDS = {
    Venue.SPOT: (3_735_683_259, 50_093_239_189),
    Venue.USDM: (5_266_583_935, 5_123_107_832_006),
    Venue.COINM: (1_035_683_259, 1_123_107_832_006),
}


def fixed(units: int, decimals: int) -> bytes:
    """`units` of the last decimal, written with all decimals."""
    if not decimals:
        return b"%d" % units
    sign = b"-" if units < 0 else b""
    whole, rest = divmod(abs(units), 10**decimals)
    return b"%b%d.%0*d" % (sign, whole, decimals, rest)


@dataclass(frozen=True, slots=True)
class Instrument:
    """A symbol's tick size and lot size: ticks and quantity steps are whole multiples of the last decimal."""

    venue: Venue
    symbol: str
    start_ticks: int
    price_decimals: int
    tick_units: int
    quantity_decimals: int
    step_units: int

    @property
    def name(self) -> bytes:
        return self.symbol.upper().encode()

    @property
    def pair(self) -> bytes:
        return self.symbol.partition("_")[0].upper().encode()

    def price(self, ticks: int) -> bytes:
        return fixed(ticks * self.tick_units, self.price_decimals)

    def quantity(self, steps: int) -> bytes:
        return fixed(steps * self.step_units, self.quantity_decimals)

    def amount(self, tick_steps: int) -> bytes:
        """A quote volume; only plausible on COIN-M, where volumes are in coins."""
        decimals = self.price_decimals + self.quantity_decimals
        units = tick_steps * self.tick_units * self.step_units
        surplus = max(decimals - _SPOT_DECIMALS, 0)
        return fixed(units // 10**surplus, decimals - surplus)


def instrument(venue: Venue, symbol: str) -> Instrument:
    price = _start_price(symbol)
    tick_decimals = _tick_decimals(venue, symbol, price)
    decimals = _SPOT_DECIMALS if venue is Venue.SPOT else tick_decimals
    if venue is Venue.USDM:
        decimals = max(tick_decimals, 2)
    quantity_decimals, step_units = {Venue.SPOT: (8, 1000), Venue.USDM: (3, 1), Venue.COINM: (0, 1)}[venue]
    return Instrument(
        venue=venue,
        symbol=symbol,
        start_ticks=round(price * 10**tick_decimals),
        price_decimals=decimals,
        tick_units=10 ** (decimals - tick_decimals),
        quantity_decimals=quantity_decimals,
        step_units=step_units,
    )


def _start_price(symbol: str) -> float:
    known = _START_PRICES.get(symbol[:3])
    return known if known is not None else 10.0 ** (crc32(symbol.encode()) % 3000 / 1000)


def _tick_decimals(venue: Venue, symbol: str, price: float) -> int:
    if symbol.startswith("btc") and venue is not Venue.SPOT:
        return 1
    return 2 if price >= 100 else 4


class Texts(dict[int, bytes]):
    """Prices or quantities as text, each formatted once. Prices stay near their start, so this stays
    small.
    """

    def __init__(self, of: Instrument, *, prices: bool) -> None:
        super().__init__()
        self._write = of.price if prices else of.quantity

    def __missing__(self, key: int) -> bytes:
        text = self[key] = self._write(key)
        return text


class Day(NamedTuple):
    """24-hour statistics as a ticker shows them: prices in ticks, volume in quantity steps."""

    open: int
    high: int
    low: int
    last: int
    last_quantity: int
    volume: int
    quote: int
    trades: int
    next_trade_id: int


class Market:
    """The state that a symbol's streams share; the ask is always one tick above the bid.

    Sources read and move `bid`, take ids and add to the totals. Equal seeds and equal calls in equal order
    give equal numbers.
    """

    def __init__(self, of: Instrument, seed: int, id_offset: int = 0) -> None:
        random = Random(f"{seed}:{of.venue}:{of.symbol}")
        first_trade, first_update = _FIRST_IDS[of.venue]
        self.instrument = of
        self.prices = Texts(of, prices=True)
        self.quantities = Texts(of, prices=False)
        self.bid = self.last = self.high = self.low = of.start_ticks
        self.open = of.start_ticks - random.randint(-50, 50)
        self.next_trade_id = first_trade + random.randrange(1_000_000) + id_offset
        self.next_agg_id = self.next_trade_id // 2
        self.update_id = first_update + random.randrange(1_000_000) + id_offset
        self.last_quantity = 1
        self.bid_steps, self.ask_steps = 2507, 2510
        # True once a trade stream runs: from then on only that stream makes trades, else its ids would have
        # gaps.
        self.has_tape = False
        self._trades, self._volume, self._quote = 0, 0, 0
        self._drifts = moves(random, 0.5, 3)
        self._drift_index = 0

    @property
    def day(self) -> Day:
        volume = _DAY_QUANTITY_STEPS + self._volume
        quote = _DAY_QUANTITY_STEPS * self.open + self._quote
        trades = _DAY_TRADES + self._trades
        high, low = max(self.high, self.open), min(self.low, self.open)
        return Day(
            self.open, high, low, self.last, self.last_quantity, volume, quote, trades, self.next_trade_id
        )

    def record(
        self, last: int, quantity: int, high: int, low: int, trades: int, steps: int, quote: int
    ) -> None:
        """Add trades that a tape has made; `last` and `quantity` are those of the last one."""
        self.last, self.last_quantity = last, quantity
        self.high, self.low = max(self.high, high), min(self.low, low)
        self._trades += trades
        self._volume += steps
        self._quote += quote

    def drift(self) -> None:
        """Move the price a little; without a trade stream, add a few unseen trades as well."""
        self.bid += self._drifts[self._drift_index]
        self._drift_index = (self._drift_index + 1) % TABLE_SIZE
        if self.has_tape:
            return
        trades = 1 + self._drift_index % 4
        steps = trades * (1 + self._drift_index % 97)
        self.next_trade_id += trades
        self.record(self.bid, steps // trades, self.bid, self.bid, trades, steps, steps * self.bid)


def moves(random: Random, chance: float, most: int) -> list[int]:
    """`TABLE_SIZE` price moves in ticks that add up to nothing, so that a walk over them ends where it
    began.
    """
    half = [random.randint(1, most) if random.random() < chance else 0 for _ in range(TABLE_SIZE // 2)]
    both = half + [-move for move in half]
    random.shuffle(both)
    return both


def quantities(random: Random, typical: int) -> list[int]:
    """`TABLE_SIZE` quantities in steps: mostly small, a few a hundred times larger."""
    return [min(int(random.paretovariate(1.1) * typical) + 1, typical * 2000) for _ in range(TABLE_SIZE)]
