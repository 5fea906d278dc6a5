"""REST: rows as Binance writes them, weights, limits, keys and errors."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest

from relay.binance.streams import Venue, parse_stream
from simulator.catalog import Catalog
from simulator.operations import Operations
from simulator.rest import Rest, RestAnswer, WeightBudget
from simulator.settings import ExchangeSettings

NOW_MS = 1_767_225_600_000
SPOT, USDM, COINM = Venue.SPOT, Venue.USDM, Venue.COINM
BASE = {SPOT: "/api/v3", USDM: "/fapi/v1", COINM: "/dapi/v1"}
SYMBOL = {SPOT: "BTCUSDT", USDM: "BTCUSDT", COINM: "BTCUSD_PERP"}


class Shop:
    """An exchange whose trade and aggTrade streams have made `count` events each."""

    def __init__(self, venue: Venue, count: int = 20, weight_limit: int = 6000) -> None:
        self.operations = Operations(ExchangeSettings(venue=venue))
        self.venue = venue
        self.shown = {
            channel: self._make(self.operations.catalog, channel, count) for channel in ("trade", "aggTrade")
        }
        self.rest = Rest(venue, self.operations, weight_limit)

    def _make(self, catalog: Catalog, channel: str, count: int) -> list[dict[str, Any]]:
        spec = parse_stream(self.venue, f"{SYMBOL[self.venue].lower()}@{channel}")
        return [orjson.loads(payload) for payload in catalog.markets.source(spec).make(count, NOW_MS)]

    def get(self, call: str, key: str | None = "key") -> RestAnswer:
        return self.rest.answer(f"{BASE[self.venue]}/{call}", key, NOW_MS)

    def rows(self, call: str) -> list[dict[str, Any]]:
        answer = self.get(f"{call}&symbol={SYMBOL[self.venue]}")
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = orjson.loads(answer.body)
        return found


@pytest.mark.parametrize(
    ("venue", "fields"),
    [
        (SPOT, "id price qty quoteQty time isBuyerMaker isBestMatch"),
        (USDM, "id price qty quoteQty time isBuyerMaker"),
        (COINM, "id price qty baseQty time isBuyerMaker"),
    ],
)
def test_old_trades_are_the_ones_that_were_sent(venue: Venue, fields: str) -> None:
    shop = Shop(venue)
    sent = shop.shown["trade"][5:9]
    rows = shop.rows(f"historicalTrades?fromId={sent[0]['t']}&limit=4")
    assert [(row["id"], row["price"], row["qty"], row["time"]) for row in rows] == [
        (trade["t"], trade["p"], trade["q"], trade["T"]) for trade in sent
    ]
    assert [row["isBuyerMaker"] for row in rows] == [trade["m"] for trade in sent]
    assert set(rows[0]) == set(fields.split())


def test_the_quote_quantity_is_price_times_quantity() -> None:
    row = Shop(SPOT).rows("historicalTrades?limit=1")[0]
    assert float(row["quoteQty"]) == pytest.approx(float(row["price"]) * float(row["qty"]))


@pytest.mark.parametrize(("venue", "fields"), [(SPOT, "a p q f l T m M"), (USDM, "a p q nq f l T m")])
def test_old_aggregate_trades_are_the_ones_that_were_sent(venue: Venue, fields: str) -> None:
    shop = Shop(venue)
    sent = shop.shown["aggTrade"][-3:]
    rows = shop.rows(f"aggTrades?fromId={sent[0]['a']}")
    assert rows == [{key: event[key] for key in fields.split()} for event in sent]


def test_without_an_id_the_newest_are_told_oldest_first() -> None:
    shop = Shop(USDM)
    assert [row["id"] for row in shop.rows("historicalTrades?limit=3")] == [
        trade["t"] for trade in shop.shown["trade"][-3:]
    ]


def test_no_more_than_a_thousand_rows_are_told() -> None:
    shop = Shop(SPOT, count=1500)
    rows = shop.rows(f"historicalTrades?limit=5000&fromId={shop.shown['trade'][0]['t']}")
    assert len(rows) == 1000
    assert all(later["id"] == earlier["id"] + 1 for earlier, later in pairwise(rows))


def test_futures_want_a_key_for_old_trades_and_spot_does_not() -> None:
    assert Shop(USDM).get("historicalTrades?symbol=BTCUSDT", key=None).status == 401
    assert Shop(USDM).get("aggTrades?symbol=BTCUSDT", key=None).status == 200
    assert Shop(SPOT).get("historicalTrades?symbol=BTCUSDT", key=None).status == 200


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        ("aggTrades", 400, -1102),
        ("aggTrades?symbol=NOSUCH", 400, -1121),
        ("aggTrades?symbol=btcusdt", 400, -1121),
        ("aggTrades?symbol=BTCUSDT&fromId=x", 400, -1100),
        ("depth?symbol=BTCUSDT&limit=-5", 400, -1100),
        ("nothing", 404, -1),
    ],
)
def test_wrong_calls_get_binances_error(call: str, status: int, code: int) -> None:
    answer = Shop(SPOT).get(call)
    assert (answer.status, orjson.loads(answer.body)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("venue", "call", "weight"),
    [
        (SPOT, "historicalTrades?symbol=BTCUSDT", 25),
        (SPOT, "aggTrades?symbol=BTCUSDT", 4),
        (SPOT, "depth?symbol=BTCUSDT&limit=5000", 250),
        (SPOT, "depth?symbol=BTCUSDT", 5),
        (USDM, "historicalTrades?symbol=BTCUSDT", 200),
        (USDM, "aggTrades?symbol=BTCUSDT", 20),
        (USDM, "depth?symbol=BTCUSDT&limit=1000", 20),
        (COINM, "time", 1),
    ],
)
def test_each_call_has_its_weight(venue: Venue, call: str, weight: int) -> None:
    assert Shop(venue).get(call).headers["X-MBX-USED-WEIGHT-1M"] == str(weight)


def test_above_the_limit_calls_are_refused_until_the_minute_ends() -> None:
    shop = Shop(USDM, weight_limit=45)
    statuses = [shop.get("aggTrades?symbol=BTCUSDT").status for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = shop.get("aggTrades?symbol=BTCUSDT")
    assert int(refused.headers["Retry-After"]) == 60
    later = shop.rest.answer("/fapi/v1/aggTrades?symbol=BTCUSDT", None, NOW_MS + 60_000)
    assert later.status == 200


def test_who_goes_on_after_a_refusal_is_banned() -> None:
    budget = WeightBudget(10)
    refusals = [budget.spend(11, NOW_MS) for _ in range(30)]
    assert refusals[0] == (429, 60)
    assert refusals[-1] == (418, 120)
    assert budget.spend(1, NOW_MS + 61_000) == (418, 59)
    assert budget.spend(1, NOW_MS + 121_000) is None


def test_ping_and_time_answer() -> None:
    shop = Shop(USDM)
    assert shop.get("ping").body == b"{}"
    assert orjson.loads(shop.get("time").body) == {"serverTime": NOW_MS}


@pytest.mark.parametrize("venue", list(Venue))
def test_snapshot_and_changes_together_make_the_later_snapshot(venue: Venue) -> None:
    """The local book as Binance tells clients to keep it, against the exchange's own book."""
    shop = Shop(venue)
    symbol = SYMBOL[venue].lower()
    catalog = shop.operations.catalog
    changes = catalog.markets.source(parse_stream(venue, f"{symbol}@depth@100ms"))
    tickers = catalog.markets.source(parse_stream(venue, f"{symbol}@bookTicker"))
    buffered = [orjson.loads(changes.make(1, NOW_MS)[0]) for _ in range(3)]
    tickers.make(5, NOW_MS)
    book = _LocalBook(orjson.loads(shop.get(f"depth?symbol={SYMBOL[venue]}&limit=5000").body))
    for _ in range(200):
        tickers.make(3, NOW_MS)
        buffered.append(orjson.loads(changes.make(1, NOW_MS)[0]))
    for event in buffered:
        book.apply(event)
    end = orjson.loads(shop.get(f"depth?symbol={SYMBOL[venue]}&limit=5000").body)
    assert book.applied >= 200
    assert book.levels == _LocalBook(end).levels


class _LocalBook:
    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.levels = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}
        self.applied = 0
        self._at = snapshot["lastUpdateId"]

    def apply(self, event: dict[str, Any]) -> None:
        if event["u"] <= self._at:
            return
        if self.applied:
            assert event.get("pu", event["U"] - 1) == self._at
        else:
            assert event["U"] <= self._at + 1 or event.get("pu") == self._at
        self.applied += 1
        self._at = event["u"]
        for side, levels in self.levels.items():
            levels.update(dict(event[side]))
            self.levels[side] = {price: size for price, size in levels.items() if float(size)}
