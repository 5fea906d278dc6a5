"""The configuration as users write it: defaults, overrides, and what they come to for each stream."""

import pickle
from pathlib import Path

import pytest

from cli.connect import needed_cpus
from relay.binance.streams import Venue
from relay.config import Config, StreamSettings, load_config, parse_config
from relay.config.diff import differences
from relay.config.secret import Part, Secret
from relay.model.choices import Delivery, Overflow
from tests.support.paths import ROOT

ENVIRON = {"HOME": "/home/u", "PASSWORD": "hunter2"}
TWO = "shards: [btcusdt@trade, ethusdt@trade]\n"
SHIPPED = ROOT / "shards.yaml"


def parse(text: str, **environ: str) -> Config:
    return parse_config(text, ENVIRON | environ)


def only_stream(text: str, **environ: str) -> StreamSettings:
    [settings] = parse(text, **environ).streams
    return settings


def test_the_shipped_file_holds_the_ten_usdm_streams_and_no_default_twice() -> None:
    config = load_config(SHIPPED, ENVIRON)
    channels = ("trade", "bookTicker", "ticker", "depth20@100ms", "markPrice@1s")
    expected = {f"usdm:{symbol}@{channel}" for symbol in ("btcusdt", "ethusdt") for channel in channels}
    assert {one.spec.key for one in config.streams} == expected
    assert config == parse("shards: [" + ", ".join(one.spec.name for one in config.streams) + "]")


def test_defaults_are_those_of_the_design() -> None:
    config = parse("shards:\n" + "".join(f"- s{n}@trade\n" for n in range(10)))
    assert config.exchange.venue is Venue.USDM
    assert config.exchange.url is None
    assert config.nats.servers == ("nats://127.0.0.1:4222",)
    assert config.nats.delivery is Delivery.JETSTREAM
    assert config.nats.subject == "binance.{venue}.{symbol}.{channel}"
    assert (config.publishers.min, config.publishers.max, config.publishers.scale) == (1, 6, "auto")
    assert (config.queue.max_messages, config.queue.max_bytes, config.queue.overflow) == (5000, 2**24, "auto")
    assert (config.journal.enabled, config.journal.max_bytes) == (True, 2**30)
    assert config.journal.directory == Path("/home/u/.local/state/sluice/journal")


def test_the_files_keys_are_read() -> None:
    config = parse(
        """
        exchange: {venue: spot, url: "ws://127.0.0.1:9001"}
        nats:
          servers: ["nats://a", "b:4223"]
          delivery: core
          headers: false
          stream: {max_bytes: 2GiB, max_age_s: 24h, duplicate_window_s: 10m, replicas: 3}
        publishers: {min: 2, max: 2, scale: 2}
        queue: {max_messages: 7, max_bytes: 500KB, overflow: drop_oldest}
        journal: {directory: /data, max_bytes: 2MiB}
        resources: {stream_cpus: 0.5, publisher_cpus: 1, publisher_nodes: publishers, twin_nodes: twins}
        shards: [btcusdt@trade, ethusdt@trade]
        """
    )
    assert config.exchange.url == "ws://127.0.0.1:9001"
    assert config.nats.servers == ("nats://a:4222", "nats://b:4223")
    assert config.nats.stream.max_age_s == 86400
    assert config.nats.stream.duplicate_window_s == 600
    assert config.queue.max_bytes == 500_000
    assert config.publishers.scale == 2
    assert [one.overflow for one in config.streams] == [Overflow.DROP_OLDEST] * 2
    assert config.resources.publisher_cpus == 1
    assert (config.resources.stream_nodes, config.resources.publisher_nodes) == (None, "publishers")
    assert config.resources.twin_nodes == "twins"


def test_a_critical_stream_takes_two_connections_and_two_actors() -> None:
    config = parse("shards: [btcusdt@trade, {stream: ethusdt@trade, critical: true}]")
    assert [one.streams for one in config.streams] == [3, 3]
    assert needed_cpus(config) == pytest.approx(3 * 0.1 + config.publishers.max * 0.1)
    plain = parse("shards: [btcusdt@trade, ethusdt@trade]")
    assert differences(plain, config) == ("ethusdt@trade: critical: False is now True",)


def test_a_shards_own_keys_count_over_the_top_levels() -> None:
    first, second = parse(
        """
        queue: {max_messages: 10, max_bytes: 1KiB}
        journal: {directory: /data}
        shards:
          - btcusdt@depth20@100ms
          - stream: btcusdt@trade
            venue: spot
            critical: true
            exchange: {url: "ws://127.0.0.1:9001/ws", silence_limit_s: 2m}
            queue: {max_messages: 20, overflow: block}
            journal: {max_bytes: 3MiB}
        """
    ).streams
    assert (first.queue.max_messages, first.overflow, first.critical) == (10, Overflow.CONFLATE, False)
    assert (second.queue.max_messages, second.queue.max_bytes) == (20, 1024)
    assert (second.overflow, second.critical) == (Overflow.BLOCK, True)
    assert second.url == "ws://127.0.0.1:9001/ws/btcusdt@trade"
    assert second.spec.silence_limit_s == 120
    assert (second.journal, second.journal_max_bytes) == (True, 3 * 2**20)
    assert second.journal_directory == Path("/data")
    assert second.subject == "binance.spot.btcusdt.trade"


@pytest.mark.parametrize("off", ["off", "false", "'off'", "{enabled: false}"])
def test_the_journal_can_be_switched_off_for_all_and_on_for_one(off: str) -> None:
    shards = "[a@trade, {stream: b@trade, journal: on}, {stream: c@trade, journal: {max_bytes: 1}}]"
    settings = parse(f"journal: {off}\nshards: {shards}").streams
    assert [one.journal for one in settings] == [False, True, True]
    assert [one.overflow for one in settings] == [Overflow.BLOCK, Overflow.SPILL, Overflow.SPILL]


def test_the_journal_can_be_switched_off_for_one() -> None:
    first, second = parse("shards: [btcusdt@trade, {stream: ethusdt@trade, journal: off}]").streams
    assert (first.journal, second.journal) == (True, False)


@pytest.mark.parametrize(("written", "limit_s"), [("off", None), ("90", 90), ("1.5m", 90), ("null", 30)])
def test_the_silence_limit_can_be_set_and_switched_off(written: str, limit_s: float | None) -> None:
    text = f"exchange: {{silence_limit_s: {written}}}\nshards: [btcusdt@trade]"
    assert only_stream(text).spec.silence_limit_s == limit_s


def test_connections_are_replaced_within_the_day_and_share_half_of_what_binance_allows() -> None:
    stream = only_stream("shards: [btcusdt@trade]")
    assert (stream.rotate_after_s, stream.connects_per_5min) == (23 * 3600, 150)
    assert (stream.nodes_share_address, stream.streams) == (True, 1)


def test_an_exchange_of_ones_own_may_take_more_connections_than_binance() -> None:
    own = "exchange: {connects_per_5min: 5000, url: 'ws://127.0.0.1:1'}\nshards: [btcusdt@trade]"
    assert only_stream(own).connects_per_5min == 5000


@pytest.mark.parametrize(
    ("stream", "overflow"),
    [
        ("btcusdt@trade", Overflow.SPILL),
        ("btcusdt@depth@100ms", Overflow.SPILL),
        ("btcusdt@forceOrder", Overflow.SPILL),
        ("'!contractInfo'", Overflow.SPILL),
        ("'!ticker@arr'", Overflow.SPILL),
        ("btcusdt@depth20", Overflow.CONFLATE),
        ("btcusdt@markPrice", Overflow.CONFLATE),
        ("btcusdt@kline_1m", Overflow.CONFLATE),
    ],
)
def test_automatic_overflow_goes_by_kind(stream: str, overflow: Overflow) -> None:
    assert only_stream(f"shards: [{stream}]").overflow is overflow


def test_streams_that_share_a_subject_are_stored_apart() -> None:
    text = "nats: {subject: 'md.{symbol}'}\nshards: [btcusdt@trade, btcusdt@ticker, ethusdt@trade]"
    settings = parse(text).streams
    assert [one.subject for one in settings] == ["md.btcusdt", "md.btcusdt", "md.ethusdt"]
    assert [one.stored_subject for one in settings] == [
        "sluice.stored.usdm.btcusdt.trade",
        "sluice.stored.usdm.btcusdt.ticker",
        "md.ethusdt",
    ]


def test_core_nats_has_no_republishing_so_shared_subjects_are_published_on_directly() -> None:
    settings = parse(TWO + "nats: {subject: binance.websocket.data, delivery: core}").streams
    assert {one.stored_subject for one in settings} == {"binance.websocket.data"}


@pytest.mark.parametrize(
    ("venue", "stream", "url"),
    [
        ("usdm", "btcusdt@trade", "wss://fstream.binance.com/public/ws/btcusdt@trade"),
        ("usdm", "btcusdt@ticker", "wss://fstream.binance.com/market/ws/btcusdt@ticker"),
        ("spot", "btcusdt@trade", "wss://stream.binance.com:9443/ws/btcusdt@trade"),
        ("coinm", "btcusd_perp@trade", "wss://dstream.binance.com/ws/btcusd_perp@trade"),
    ],
)
def test_without_a_url_streams_come_from_binances_own_hosts(venue: str, stream: str, url: str) -> None:
    assert only_stream(f"exchange: {{venue: {venue}}}\nshards: [{stream}]").url == url


def test_secrets_come_from_the_environment_and_are_never_shown() -> None:
    config = parse(TWO + "nats: {user: me, password: '${PASSWORD}'}")
    assert config.nats.password is not None
    assert config.nats.password.reveal({"PASSWORD": "hunter2"}, "nats.password") == "hunter2"
    shown = f"{config!r} {config} {config.model_dump()} {config.nats.password} {config.model_dump_json()}"
    assert "hunter2" not in shown + str(pickle.dumps(config))


def test_credentials_in_a_server_from_the_environment_are_kept_apart_from_the_address() -> None:
    config = parse(TWO + "nats: {servers: ['nats://me:${PASSWORD}@h1', 'nats://h2']}")
    assert config.nats.servers == ("nats://h1:4222", "nats://h2:4222")
    assert (config.nats.user, config.nats.password) == (
        "me",
        Secret("nats://me:${PASSWORD}@h1", Part.PASSWORD),
    )


def test_gaps_are_healed_at_the_rest_side_of_each_streams_own_exchange() -> None:
    first, second, third, fourth = parse(
        """
        exchange: {rest_url: "https://proxy.example", api_key_file: /run/key}
        shards:
          - btcusdt@trade
          - {stream: btcusdt@trade, venue: spot}
          - {stream: ethusdt@trade, exchange: {url: "ws://127.0.0.1:9001"}}
          - {stream: bnbusdt@trade, exchange: {rest_url: "http://127.0.0.1:7"}}
        """
    ).streams
    assert [one.rest_url for one in (first, second, third, fourth)] == [
        "https://proxy.example", "https://api.binance.com", "http://127.0.0.1:9001", "http://127.0.0.1:7"
    ]  # fmt: skip
    assert [one.rest_sharers for one in (first, second)] == [3, 1], "futures share one request weight"
    assert first.heal and first.api_key_file == Path("/run/key")
    assert not only_stream("exchange: {heal: off}\nshards: [btcusdt@trade]").heal


def test_the_old_clients_url_is_kept_as_a_reference() -> None:
    found = {url: parse(TWO, NATS_URL=url).nats for url in ("nats://me:pw@h1,nats://h2", "t@h")}
    assert [(nats.user, nats.password, nats.token) for nats in found.values()] == [
        ("me", Secret("${NATS_URL}", Part.PASSWORD), None),
        (None, None, Secret("${NATS_URL}", Part.USER)),
    ]


@pytest.mark.parametrize(
    "text", ["nats: {password: '${UNSET:-}'}", "nats: {token: '${EMPTY}', token_file: /t}"]
)
def test_an_empty_secret_is_none(text: str) -> None:
    nats = parse(TWO + text, EMPTY="").nats
    assert (nats.password, nats.token) == (None, None)


def test_a_config_survives_json_and_pickling_references_to_secrets_included() -> None:
    config = parse(
        "shards: [a@trade, {stream: b@ticker, venue: spot, queue: {max_bytes: 1}, journal: off}]\n"
        "nats: {user: me, password: '${PASSWORD}'}\nprofile: aggressive\nexchange: {silence_limit_s: off}"
    )
    again = Config.model_validate_json(config.model_dump_json())
    assert again == config == pickle.loads(pickle.dumps(config))
    assert again.streams == config.streams
    for one in config.streams:
        assert StreamSettings.model_validate_json(one.model_dump_json()) == one
        assert pickle.loads(pickle.dumps(one)) == one


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(TWO).queue.max_messages = 1  # type: ignore[misc]
