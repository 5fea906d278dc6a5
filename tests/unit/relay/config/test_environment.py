"""Profiles, the old client's environment variables, and numbers that fit themselves to the streams."""

from pathlib import Path
from typing import Any

import pytest

from relay.binance.streams import Venue
from relay.config import Config, StreamSettings, load_config, parse_config
from relay.errors import ConfigError

ENVIRON = {"HOME": "/home/u"}
TWO = "shards: [btcusdt@trade, ethusdt@trade]\n"


def parse(text: str, **environ: str) -> Config:
    return parse_config(text, ENVIRON | environ)


def refusal(text: str, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, **environ)
    assert caught.value.problem
    assert caught.value.remedy
    return caught.value


def only_stream(text: str, **environ: str) -> StreamSettings:
    [settings] = parse(text, **environ).streams
    return settings


PUBLISHERS: list[tuple[str, tuple[int, int, Any]]] = [
    ("", (1, 2, "auto")),
    ("publishers: {scale: 2}", (1, 2, 2)),
    ("publishers: {max: 1}", (1, 1, "auto")),
    ("publishers: {min: 2}", (2, 2, "auto")),
    ("profile: conservative", (1, 2, 2)),
    ("profile: aggressive\npublishers: {max: 1}", (1, 1, 1)),
    ("profile: aggressive\npublishers: {scale: auto}", (1, 2, "auto")),
    ("profile: conservative\npublishers: {scale: 1}", (1, 2, 1)),
]


@pytest.mark.parametrize(("text", "expected"), PUBLISHERS)
def test_what_is_not_written_of_the_publishers_fits_itself_to_the_streams(
    text: str, expected: tuple[int, int, Any]
) -> None:
    publishers = parse(TWO + text).publishers
    assert (publishers.min, publishers.max, publishers.scale) == expected


@pytest.mark.parametrize(
    ("profile", "count", "size"),
    [("conservative", 3, 3000), ("recommended", 5, 5000), ("aggressive", 10, 10000)],
)
def test_profiles_are_those_of_the_old_client(profile: str, count: int, size: int) -> None:
    config = parse(f"profile: {profile}\nshards:\n" + "".join(f"- s{n}@trade\n" for n in range(10)))
    assert (config.publishers.scale, config.queue.max_messages) == (count, size)
    assert config.publishers.max == count


def test_keys_in_the_file_count_over_the_profile() -> None:
    config = parse(TWO + "profile: aggressive\nqueue: {max_messages: 7}")
    assert config.queue.max_messages == 7


def test_the_old_clients_variables_lie_on_top_of_the_file() -> None:
    config = parse(
        TWO + "nats: {servers: [nats://x], subject: x}\nqueue: {max_messages: 1}\npublishers: {scale: auto}",
        NATS_URL="nats://a:1, nats://b:2",
        NATS_TOPIC="binance.websocket.data",
        BINANCE_WS_URL="ws://127.0.0.1:9001/ws",
        BINANCE_STREAMS="btcusdt@ticker, ethusdt@ticker,",
        MAX_QUEUE_SIZE="9",
        NUM_MESSAGE_PROCESSORS="2",
    )
    assert config.nats.servers == ("nats://a:1", "nats://b:2")
    assert [one.url for one in config.streams] == [
        "ws://127.0.0.1:9001/market/ws/btcusdt@ticker",
        "ws://127.0.0.1:9001/market/ws/ethusdt@ticker",
    ]
    assert {one.subject for one in config.streams} == {"binance.websocket.data"}
    assert (config.queue.max_messages, config.publishers.scale) == (9, 2)


def test_empty_variables_change_nothing() -> None:
    names = ("NATS_URL", "NATS_TOPIC", "BINANCE_WS_URL", "BINANCE_STREAMS", "MAX_QUEUE_SIZE")
    assert parse(TWO, **dict.fromkeys(names, " ")) == parse(TWO)


def test_without_a_file_the_environment_alone_may_name_the_streams() -> None:
    config = load_config(None, ENVIRON | {"BINANCE_STREAMS": "btcusdt@trade"})
    assert [one.spec.name for one in config.streams] == ["btcusdt@trade"]


def test_the_old_url_decides_the_venue_as_it_always_did() -> None:
    settings = only_stream("shards: [btcusdt@trade]", BINANCE_WS_URL="wss://stream.binance.com:9443/ws")
    assert settings.spec.venue is Venue.SPOT
    assert settings.url == "wss://stream.binance.com:9443/ws/btcusdt@trade"


def test_the_state_folder_of_the_user_holds_the_journal() -> None:
    config = parse(TWO, XDG_STATE_HOME="/state")
    assert config.journal.directory == Path("/state/sluice/journal")
    assert parse(TWO, XDG_STATE_HOME="relative") == parse(TWO)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NATS_URL", "http://h", "'http://h' does not begin with nats://"),
        ("NATS_URL", "nats://a:b@h,nats://c:d@h", "different logins"),
        ("NATS_TOPIC", "two words", "'two words' has a space"),
        ("BINANCE_WS_URL", "fstream", "'fstream' does not begin with ws://"),
        ("BINANCE_STREAMS", "a@trade,a@fundingRate@1s", "write a@markPrice@1s"),
        ("BINANCE_STREAMS", ",", "no streams are listed"),
        ("MAX_QUEUE_SIZE", "0", "0 is out of range"),
        ("MAX_QUEUE_SIZE", "lots", "'lots' is not a whole number"),
        ("NUM_MESSAGE_PROCESSORS", "3", "3 publishers are more than the streams, 2"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(name: str, value: str, message: str) -> None:
    error = refusal(TWO, **{name: value})
    assert error.path == name
    assert message in f"{error.problem}; {error.remedy}"


def test_a_stream_refused_for_the_old_urls_venue_says_where_the_venue_came_from() -> None:
    error = refusal("shards: [btcusdt@markPrice]", BINANCE_WS_URL="wss://stream.binance.com:9443/ws")
    assert "is not a stream of spot" in error.problem
    assert error.remedy.endswith("BINANCE_WS_URL sets the venue to spot")
