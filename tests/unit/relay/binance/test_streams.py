"""Stream names: what is accepted, what it means, and what is said of the rest."""

import json
import pickle
import re
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.binance.grammar import SYMBOLLESS, WITH_SYMBOL
from relay.binance.streams import StreamKind, StreamSpec, Venue, parse_stream
from relay.config.subjects import check_subject
from relay.errors import ConfigError

TEMPLATE = "binance.{venue}.{symbol}.{channel}"


def spec(name: str, venue: str = "usdm") -> StreamSpec:
    return parse_stream(Venue(venue), name)


def refusal(name: str, venue: str = "usdm") -> str:
    with pytest.raises(ConfigError) as caught:
        spec(name, venue)
    assert caught.value.path == ""
    return str(caught.value)


@pytest.mark.parametrize(
    ("venue", "name", "path"),
    [
        ("usdm", "btcusdt@trade", "/public/ws/btcusdt@trade"),
        ("usdm", "btcusdt@bookTicker", "/public/ws/btcusdt@bookTicker"),
        ("usdm", "btcusdt@depth@0ms", "/public/ws/btcusdt@depth@0ms"),
        ("usdm", "btcusdt@depth20@100ms", "/public/ws/btcusdt@depth20@100ms"),
        ("usdm", "btcusdt@rpiDepth@500ms", "/public/ws/btcusdt@rpiDepth@500ms"),
        ("usdm", "!bookTicker", "/public/ws/!bookTicker"),
        ("usdm", "btcusdt@aggTrade", "/market/ws/btcusdt@aggTrade"),
        ("usdm", "btcusdt@markPrice@1s", "/market/ws/btcusdt@markPrice@1s"),
        ("usdm", "btcusdt@ticker", "/market/ws/btcusdt@ticker"),
        ("usdm", "btcusdt@kline_1m", "/market/ws/btcusdt@kline_1m"),
        ("usdm", "btcusdt_perpetual@continuousKline_1m", "/market/ws/btcusdt_perpetual@continuousKline_1m"),
        ("usdm", "!forceOrder@arr", "/market/ws/!forceOrder@arr"),
        ("usdm", "!contractInfo", "/market/ws/!contractInfo"),
        ("usdm", "tradingSession", "/market/ws/tradingSession"),
        ("spot", "btcusdt@trade", "/ws/btcusdt@trade"),
        ("spot", "btcusdt@kline_1d@+08:00", "/ws/btcusdt@kline_1d@+08:00"),
        ("coinm", "btcusd_perp@trade", "/ws/btcusd_perp@trade"),
        ("coinm", "btcusd@indexPrice", "/ws/btcusd@indexPrice"),
        ("spot", "币usdt@trade", "/ws/%E5%B8%81usdt@trade"),
    ],
)
def test_usdm_alone_is_routed_and_symbols_are_percent_encoded(venue: str, name: str, path: str) -> None:
    assert spec(name, venue).path == path


@pytest.mark.parametrize(
    ("venue", "name", "subject"),
    [
        ("usdm", "btcusdt@depth20@100ms", "binance.usdm.btcusdt.depth20_100ms"),
        ("spot", "btcusdt@trade", "binance.spot.btcusdt.trade"),
        ("spot", "btcusdt@kline_1d@+08:00", "binance.spot.btcusdt.kline_1d_+08:00"),
        ("coinm", "btcusd_perp@markPrice@1s", "binance.coinm.btcusd_perp.markPrice_1s"),
        ("usdm", "!bookTicker", "binance.usdm.all.bookTicker"),
        ("usdm", "!markPrice@arr@1s", "binance.usdm.all.markPrice_arr_1s"),
        ("spot", "!ticker_1h@arr", "binance.spot.all.ticker_1h_arr"),
        ("usdm", "tradingSession", "binance.usdm.all.tradingSession"),
    ],
)
def test_the_subject_is_venue_symbol_and_channel(venue: str, name: str, subject: str) -> None:
    assert spec(name, venue).subject(TEMPLATE) == subject


def test_every_name_on_nats_is_derived_from_venue_symbol_and_channel() -> None:
    stream = spec("btcusdt@depth20@100ms")
    assert stream.key == "usdm:btcusdt@depth20@100ms"
    assert stream.jetstream_name == "SLUICE_usdm_btcusdt_depth20_100ms"
    assert stream.fence_subject == "sluice.fence.usdm.btcusdt.depth20_100ms"
    assert stream.stored_subject == "sluice.stored.usdm.btcusdt.depth20_100ms"
    assert stream.loss_subject == "sluice.loss.usdm.btcusdt.depth20_100ms"
    assert stream.rejected_subject == "sluice.rejected.usdm.btcusdt.depth20_100ms"
    assert stream.subject("binance.websocket.data") == "binance.websocket.data"


@pytest.mark.parametrize(
    ("venue", "name", "id_key"),
    [
        ("usdm", "btcusdt@trade", "t"),
        ("usdm", "btcusdt@aggTrade", "a"),
        ("spot", "btcusdt@blockTrade", "t"),
        ("spot", "btcusdt@depth@100ms", "u"),
        ("usdm", "btcusdt@depth", "u"),
        ("usdm", "btcusdt@depth20@100ms", ""),
        ("usdm", "btcusdt@bookTicker", ""),
        ("usdm", "btcusdt@rpiDepth@500ms", ""),
        ("usdm", "btcusdt@markPrice", ""),
    ],
)
def test_only_trades_and_diffs_have_ids_of_their_own(venue: str, name: str, id_key: str) -> None:
    assert spec(name, venue).id_key == id_key


@pytest.mark.parametrize(
    ("name", "limit_s"),
    [
        ("btcusdt@trade", 30),
        ("btcusdt@bookTicker", 10),
        ("btcusdt@depth20@100ms", 2),
        ("btcusdt@markPrice@1s", 5),
        ("btcusdt@markPrice", 10),
        ("btcusdt@forceOrder", None),
        ("!contractInfo", None),
    ],
)
def test_the_silence_limit_goes_by_kind_and_rate(name: str, limit_s: float | None) -> None:
    assert spec(name).silence_limit_s == limit_s


@pytest.mark.parametrize("name", ["trade", "aggTrade", "depth@100ms", "rpiDepth@500ms", "forceOrder"])
def test_streams_of_changes_are_lossless(name: str) -> None:
    assert spec(f"btcusdt@{name}").lossless


@pytest.mark.parametrize("name", ["depth20@100ms", "bookTicker", "ticker", "markPrice@1s", "kline_1m"])
def test_streams_of_states_are_snapshots(name: str) -> None:
    assert spec(f"btcusdt@{name}").snapshot


@pytest.mark.parametrize("name", sorted(SYMBOLLESS[Venue.USDM]))
def test_streams_of_all_symbols_are_lossless_because_one_event_holds_some_symbols_only(name: str) -> None:
    assert spec(name).lossless


@pytest.mark.parametrize(
    ("venue", "name", "remedy"),
    [
        ("usdm", "btcusdt@fundingRate@1s", r"carries the funding rate .* write btcusdt@markPrice@1s$"),
        ("spot", "btcusdt@fundingRate@1s", r"write btcusdt@markPrice@1s, with venue usdm$"),
        ("usdm", "fundingRate@1s", r"write btcusdt@markPrice@1s$"),
        ("usdm", "BTCUSDT@trade", r"upper-case symbol; write btcusdt@trade"),
        ("usdm", "btcusdt@aggtrade", r"write btcusdt@aggTrade$"),
        ("usdm", "BTCUSDT@AGGTRADE", r"write btcusdt@aggTrade$"),
        ("usdm", "btcusdt@bookticker", r"write btcusdt@bookTicker$"),
        ("usdm", "btcusdt@depth15", r"write btcusdt@depth\d"),
        ("usdm", "btcusdt@kline_1H", r"write btcusdt@kline_1h$"),
        ("usdm", "btcusdt@KLINE_1M", r"write btcusdt@kline_1m$"),
        ("usdm", "!markprice@arr", r"write !markPrice@arr$"),
        ("usdm", "btcusdt@kline_1s", r"one of spot: set venue to spot$"),
        ("spot", "btcusdt@markPrice", r"usdm and coinm: set venue to usdm$"),
        ("spot", "!bookTicker", r"<symbol>@bookTicker for each symbol$"),
        ("spot", "!ticker@arr", r"write !miniTicker@arr"),
        ("coinm", "btcusd@indexPrice@1s", r"write <pair>@indexPrice$"),
        ("coinm", "btcusd_perp@indexPrice", r"write btcusd@indexPrice$"),
        ("coinm", "btcusdt@trade", r"write a contract, such as btcusd_perp@trade$"),
        ("usdm", "btcusdt@continuousKline_1m", r"btcusdt_perpetual@continuousKline_1m$"),
        ("usdm", "trade", r"write btcusdt@trade$"),
        ("usdm", "@trade", r"write btcusdt@trade$"),
        ("usdm", "btcusdt", r"such as btcusdt@trade$"),
        ("usdm", "", r"such as btcusdt@trade$"),
        ("usdm", "x@!ticker@arr", r"write x@ticker$"),
    ],
)
def test_a_refusal_says_what_to_write_instead(venue: str, name: str, remedy: str) -> None:
    assert re.search(remedy, refusal(name, venue))


@pytest.mark.parametrize(
    "symbol", ["btc usdt", "a.b", "a*", "a>", "a/b", "a\\b", "a\n", "ß", "all", "a" * 51, "\ud800", "\u202e"]
)
def test_a_symbol_that_cannot_be_one_is_refused(symbol: str) -> None:
    assert "is no symbol" in refusal(f"{symbol}@trade")


def test_a_spec_survives_pickling_and_json() -> None:
    stream = spec("btcusdt@markPrice@1s")
    assert pickle.loads(pickle.dumps(stream)) == stream
    assert json.loads(json.dumps(asdict(stream)))["kind"] == StreamKind.MARK_PRICE


def symbols(venue: Venue, form: str) -> st.SearchStrategy[str]:
    base = st.from_regex(r"[a-z0-9币ж]{1,12}", fullmatch=True).filter(lambda symbol: symbol != "all")
    if form.startswith("continuousKline"):
        return base.map(lambda symbol: f"{symbol}_next_quarter")
    pair = venue is not Venue.COINM or form.startswith("indexPrice")
    return base if pair else base.map(lambda symbol: f"{symbol}_perp")


@st.composite
def names(draw: st.DrawFn) -> tuple[Venue, str]:
    venue = draw(st.sampled_from(Venue))
    form = draw(st.sampled_from([*WITH_SYMBOL[venue], *SYMBOLLESS[venue]]))
    return venue, form if form in SYMBOLLESS[venue] else f"{draw(symbols(venue, form))}@{form}"


@settings(deadline=None)
@given(names())
def test_every_stream_of_the_table_parses_and_keeps_its_name(named: tuple[Venue, str]) -> None:
    venue, name = named
    stream = parse_stream(venue, name)
    assert (stream.venue, stream.name) == (venue, name)
    check_subject(stream.subject(TEMPLATE), name)
    assert not re.search(r"[\s.*>/\\]", stream.jetstream_name)
    assert len(stream.jetstream_name.encode()) <= 255
    assert stream.path.isascii()


def test_no_two_streams_of_one_symbol_share_a_jetstream_name() -> None:
    for venue in Venue:
        symbol = "btcusd_perpetual" if venue is Venue.COINM else "btcusdt_perpetual"
        forms = [form for form in WITH_SYMBOL[venue] if not form.startswith("indexPrice")]
        streams = [parse_stream(venue, f"{symbol}@{form}") for form in forms]
        streams += [parse_stream(venue, name) for name in SYMBOLLESS[venue]]
        assert len({stream.jetstream_name for stream in streams}) == len(streams)


ANY_TEXT = st.text(st.characters(), max_size=60)
FORMS = st.sampled_from(["trade", "depth@100ms", "kline_1m", "markPrice"])
NEAR_NAMES = st.tuples(ANY_TEXT, FORMS).map("@".join)


@settings(deadline=None)
@given(st.sampled_from(Venue), ANY_TEXT | NEAR_NAMES)
def test_any_text_is_a_stream_or_is_refused_with_a_remedy(venue: Venue, name: str) -> None:
    try:
        stream = parse_stream(venue, name)
    except ConfigError as error:
        assert error.problem and error.remedy
        assert str(error).isprintable()
    else:
        assert stream.name == name
