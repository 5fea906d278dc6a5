"""Payloads: every documented field, ids without gaps, one price for a symbol, equal bytes by seed."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.binance.streams import StreamKind, Venue, parse_stream
from relay.errors import ConfigError
from simulator.payloads import Markets, checked, event_id

NOW_MS = 1_767_225_600_123
SPOT, USDM, COINM = Venue.SPOT, Venue.USDM, Venue.COINM
SYMBOLS = {SPOT: "btcusdt", USDM: "btcusdt", COINM: "btcusd_perp"}

# As documented in 2026: venue, channel, fields; `k.` and `o.` are those of the inner object.
FIELDS = [
    (SPOT, "trade", "e E s t p q T m M"),
    (SPOT, "aggTrade", "e E s a p q f l T m M"),
    (SPOT, "blockTrade", "e E s t p q T m"),
    (SPOT, "depth", "e E s U u b a"),
    (SPOT, "depth@100ms", "e E s U u b a"),
    (SPOT, "depth20@100ms", "lastUpdateId bids asks"),
    (SPOT, "bookTicker", "u s b B a A"),
    (SPOT, "miniTicker", "e E s c o h l v q"),
    (SPOT, "ticker", "e E s p P w x c Q b B a A o h l v q O C F L n"),
    (SPOT, "kline_1m", "e E s k k.t k.T k.s k.i k.f k.L k.o k.c k.h k.l k.v k.n k.x k.q k.V k.Q k.B"),
    (USDM, "trade", "e E T s t p q X m"),
    (USDM, "aggTrade", "e E a s p q nq f l T m st"),
    (USDM, "depth@0ms", "e E T s ps U u pu b a st"),
    (USDM, "depth20@100ms", "e E T s ps U u pu b a st"),
    (USDM, "bookTicker", "e u E T s ps b B a A st"),
    (USDM, "markPrice@1s", "e E s p i P r ap T st"),
    (USDM, "kline_1h", "e E s k k.t k.T k.s k.i k.f k.L k.o k.c k.h k.l k.v k.n k.x k.q k.V k.Q k.B"),
    (USDM, "ticker", "e E s p P w c Q o h l v q O C F L n ps st"),
    (USDM, "miniTicker", "e E s c o h l v q ps st"),
    (USDM, "forceOrder", "e E o ps st o.s o.S o.o o.f o.q o.p o.ap o.X o.l o.z o.T"),
    (COINM, "trade", "e E T s ps t p q X m"),
    (COINM, "aggTrade", "e E a s ps p q nq f l T m st"),
    (COINM, "depth@100ms", "e E T s ps U u pu b a st"),
    (COINM, "depth5@500ms", "e E T s ps U u pu b a st"),
    (COINM, "bookTicker", "e u E T s ps b B a A st"),
    (COINM, "markPrice", "e E s ps p i P r ap T st"),
    (COINM, "kline_1m", "e E s ps k k.t k.T k.s k.i k.f k.L k.o k.c k.h k.l k.v k.n k.x k.q k.V k.Q k.B"),
    (COINM, "ticker", "e E s p P w c Q o h l v q O C F L n ps st"),
    (COINM, "miniTicker", "e E s c o h l v q ps st"),
    (COINM, "forceOrder", "e E o ps st o.s o.S o.o o.f o.q o.p o.ap o.X o.l o.z o.T"),
]


def markets(venue: Venue = USDM, seed: int = 1, **more: int) -> Markets:
    return Markets(venue, (SYMBOLS[venue], "ethusdt"), seed, **more)


def made(of: Markets, channel: str, count: int, now_ms: int = NOW_MS) -> list[bytes]:
    return of.source(checked(of.venue, f"{SYMBOLS[of.venue]}@{channel}")).make(count, now_ms)


def events(of: Markets, channel: str, count: int) -> list[dict[str, Any]]:
    return [orjson.loads(payload) for payload in made(of, channel, count)]


def _inner(event: dict[str, Any]) -> set[str]:
    inner = {"kline": "k", "forceOrder": "o"}.get(event.get("e", ""), "")
    return {f"{inner}.{name}" for name in event[inner]} if inner else set()


@pytest.mark.parametrize(("venue", "channel", "names"), FIELDS)
def test_every_documented_field_is_there_and_no_other(venue: Venue, channel: str, names: str) -> None:
    for event in events(markets(venue), channel, 3):
        assert {*event, *_inner(event)} == set(names.split())


@pytest.mark.parametrize(("venue", "channel", "names"), FIELDS)
def test_event_type_symbol_and_times_are_what_the_stream_promises(
    venue: Venue, channel: str, names: str
) -> None:
    spec = parse_stream(venue, f"{SYMBOLS[venue]}@{channel}")
    event = events(markets(venue), channel, 1)[0]
    assert event.get("e", "") == spec.event_type
    assert event.get("E", NOW_MS) == NOW_MS
    assert event.get("s", spec.symbol.upper()) == spec.symbol.upper()
    assert event.get("st") in {SPOT: (None,), USDM: (1, None), COINM: (2, None)}[venue]


@pytest.mark.parametrize(
    ("venue", "price", "quantity"),
    [(SPOT, r"\d+\.\d{8}", r"\d+\.\d{8}"), (USDM, r"\d+\.\d{2}", r"\d+\.\d{3}"), (COINM, r"\d+\.\d", r"\d+")],
)
def test_prices_and_quantities_are_strings_with_the_venues_decimals(
    venue: Venue, price: str, quantity: str
) -> None:
    for event in events(markets(venue), "trade", 50):
        assert re.fullmatch(price, event["p"]), event
        assert re.fullmatch(quantity, event["q"]), event
        assert float(event["q"]) > 0


@pytest.mark.parametrize("venue", list(Venue))
@given(batches=st.lists(st.integers(1, 40), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_trade_and_aggregate_ids_have_no_hole_however_they_are_batched(
    venue: Venue, batches: list[int]
) -> None:
    of = markets(venue)
    for channel, key in (("trade", "t"), ("aggTrade", "a")):
        source = of.source(checked(venue, f"{SYMBOLS[venue]}@{channel}"))
        ids = [orjson.loads(payload)[key] for count in batches for payload in source.make(count, NOW_MS)]
        assert ids == list(range(ids[0], ids[0] + sum(batches)))


@given(batches=st.lists(st.integers(1, 40), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_batching_does_not_change_what_a_stream_says(batches: list[int]) -> None:
    for channel in (
        "trade",
        "aggTrade",
        "bookTicker",
        "depth@100ms",
        "depth20@100ms",
        "markPrice@1s",
        "ticker",
    ):
        source = markets().source(checked(USDM, f"btcusdt@{channel}"))
        parts = [payload for count in batches for payload in source.make(count, NOW_MS)]
        assert parts == made(markets(), channel, sum(batches))


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    def run(seed: int) -> list[bytes]:
        of = markets(seed=seed)
        sources = [
            of.source(checked(USDM, f"{s}@{c}"))
            for s in ("btcusdt", "ethusdt")
            for c in ("trade", "bookTicker", "depth")
        ]
        return [
            payload for turn in range(5) for source in sources for payload in source.make(turn + 1, NOW_MS)
        ]

    assert run(7) == run(7)
    assert run(7) != run(8)


def test_aggregate_trades_join_their_trade_ranges() -> None:
    for before, event in pairwise(events(markets(), "aggTrade", 100)):
        assert event["f"] == before["l"] + 1
        assert event["l"] >= event["f"]


def test_book_ticker_ids_rise_and_the_ask_is_above_the_bid() -> None:
    shown = events(markets(), "bookTicker", 500)
    assert all(before["u"] < event["u"] for before, event in pairwise(shown))
    assert all(float(event["b"]) < float(event["a"]) for event in shown)


def test_spot_changes_continue_where_the_event_before_ended() -> None:
    shown = events(markets(SPOT), "depth@100ms", 100)
    assert all(event["U"] == before["u"] + 1 <= event["u"] for before, event in pairwise(shown))


@pytest.mark.parametrize("venue", [USDM, COINM])
@pytest.mark.parametrize("channel", ["depth@100ms", "depth20@100ms"])
def test_futures_depth_names_the_event_before(venue: Venue, channel: str) -> None:
    shown = events(markets(venue), channel, 100)
    assert all(before["u"] == event["pu"] < event["U"] <= event["u"] for before, event in pairwise(shown))


def test_partial_books_are_full_sorted_and_never_crossed() -> None:
    of = markets()
    trades = of.source(checked(USDM, "btcusdt@trade"))
    source = of.source(checked(USDM, "btcusdt@depth20@100ms"))
    for _ in range(200):
        trades.make(25, NOW_MS)
        event = orjson.loads(source.make(1, NOW_MS)[0])
        bids, asks = ([float(price) for price, _ in event[side]] for side in ("b", "a"))
        assert len(bids) == len(asks) == 20
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert bids[0] < asks[0]


@pytest.mark.parametrize("venue", list(Venue))
def test_a_trade_happens_at_the_best_prices_of_its_moment(venue: Venue) -> None:
    of = markets(venue)
    trades, books = (of.source(checked(venue, f"{SYMBOLS[venue]}@{c}")) for c in ("trade", "depth5"))
    for _ in range(100):
        trade = orjson.loads(trades.make(1, NOW_MS)[0])
        book = orjson.loads(books.make(1, NOW_MS)[0])
        best = book.get("b", book.get("bids"))[0] if trade["m"] else book.get("a", book.get("asks"))[0]
        assert trade["p"] == best[0]


def test_a_long_run_stays_near_its_first_price() -> None:
    source = markets().source(checked(USDM, "btcusdt@trade"))
    prices = [float(orjson.loads(source.make(200, NOW_MS)[-1])["p"]) for _ in range(500)]
    assert max(prices) / min(prices) < 1.05
    assert len(set(prices)) > 50


@pytest.mark.parametrize("symbol", ["dogeusdt", "1000shibusdt", "币安人生usdt"])
@pytest.mark.parametrize("venue", [SPOT, USDM])
def test_any_symbol_has_a_plausible_market(venue: Venue, symbol: str) -> None:
    of = Markets(venue, (symbol,), 1)
    for channel in ("trade", "bookTicker", "depth20@100ms", "ticker"):
        event = orjson.loads(of.source(checked(venue, f"{symbol}@{channel}")).make(500, NOW_MS)[-1])
        assert event.get("s", symbol.upper()) == symbol.upper()
        assert all(float(price) > 0 for price, _ in event.get("bids", []) + event.get("asks", []))


def test_a_kline_closes_once_when_its_interval_ends() -> None:
    of = markets()
    of.source(checked(USDM, "btcusdt@trade")).make(10, NOW_MS)
    source = of.source(checked(USDM, "btcusdt@kline_1m"))
    start_ms = NOW_MS - NOW_MS % 60_000
    times = [start_ms + 1000, start_ms + 59_000, start_ms + 60_250, start_ms + 60_500]
    bars = [orjson.loads(source.make(1, at)[0])["k"] for at in times]
    assert [bar["x"] for bar in bars] == [False, False, True, False]
    assert [bar["t"] for bar in bars] == [start_ms] * 3 + [start_ms + 60_000]
    assert all(bar["T"] == bar["t"] + 59_999 for bar in bars)


def test_a_kline_counts_the_trades_of_its_bar() -> None:
    of = markets()
    trades = of.source(checked(USDM, "btcusdt@trade"))
    klines = of.source(checked(USDM, "btcusdt@kline_1m"))
    klines.make(1, NOW_MS)
    printed = [orjson.loads(payload) for payload in trades.make(17, NOW_MS)]
    bar = orjson.loads(klines.make(1, NOW_MS)[0])["k"]
    assert (bar["n"], bar["f"], bar["L"]) == (17, printed[0]["t"], printed[-1]["t"])
    assert float(bar["v"]) == pytest.approx(sum(float(trade["q"]) for trade in printed))
    assert bar["c"] == printed[-1]["p"]


def test_the_funding_time_is_the_next_eighth_hour() -> None:
    event = events(markets(), "markPrice@1s", 1)[0]
    assert event["T"] % (8 * 3_600_000) == 0
    assert 0 < event["T"] - NOW_MS <= 8 * 3_600_000


def test_continuous_klines_name_pair_and_contract() -> None:
    source = markets().source(checked(USDM, "btcusdt_perpetual@continuousKline_5m"))
    event = orjson.loads(source.make(1, NOW_MS)[0])
    assert set(event) == {"e", "E", "ps", "ct", "k"}
    assert (event["ps"], event["ct"], event["k"]["i"]) == ("BTCUSDT", "PERPETUAL", "5m")


def test_an_id_offset_moves_every_id_space() -> None:
    for channel, key in (("trade", "t"), ("bookTicker", "u")):
        plain, moved = (events(markets(id_offset=offset), channel, 1)[0][key] for offset in (0, 10**9))
        assert moved - plain == 10**9


def test_the_history_keeps_the_newest_trades() -> None:
    of = markets(history=100)
    shown = made(of, "trade", 250)
    tape = of.tapes["btcusdt@trade"]
    first = orjson.loads(shown[0])["t"]
    assert tape.newest(3) == shown[-3:]
    assert tape.after(first + 200, 10) == shown[200:210]
    assert tape.after(first, 1000) == shown[150:]
    assert tape.after(first + 250, 10) == []


@pytest.mark.parametrize(
    "name", ["!ticker@arr", "!contractInfo", "btcusdt@compositeIndex", "btcusdt@rpiDepth@500ms"]
)
def test_a_stream_that_cannot_be_shown_is_refused_with_what_can(name: str) -> None:
    with pytest.raises(ConfigError, match=r"simulated exchange has no .*book_ticker.*trade"):
        checked(USDM, name)


@pytest.mark.parametrize(
    ("kind", "payload", "found"),
    [
        (StreamKind.TRADE, b'{"e":"trade","t":5}', 5),
        (StreamKind.DEPTH_PARTIAL, b'{"lastUpdateId":6,"bids":[]}', 6),
        (StreamKind.MARK_PRICE, b'{"e":"markPriceUpdate","E":7}', None),
        (None, b'{"t":8}', None),
    ],
)
def test_event_ids_are_read_from_the_payload(
    kind: StreamKind | None, payload: bytes, found: int | None
) -> None:
    assert event_id(kind, payload) == found
