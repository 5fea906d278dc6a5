"""What is refused, and that each refusal names the YAML path, the value and what to write instead."""

from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.config import Config, parse_config
from relay.errors import ConfigError

ENVIRON = {"HOME": "/home/u", "PASSWORD": "hunter2"}
TWO = "shards: [btcusdt@trade, ethusdt@trade]\n"


def parse(text: str, **environ: str) -> Config:
    return parse_config(text, ENVIRON | environ)


def refusal(text: str, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(text, **environ)
    assert caught.value.problem
    assert caught.value.remedy
    return caught.value


REFUSED = [
    ("quue: {}", "quue", "unknown key; write queue"),
    ("queue: {max_mesages: 5}", "queue.max_mesages", "unknown key; write max_messages"),
    ("max_messages: 5", "max_messages", "unknown key; write it below queue"),
    ("zzz: 5", "zzz", "unknown key; the keys here are shards, exchange"),
    ("nats: {stream: {replica: 1}}", "nats.stream.replica", "unknown key; write replicas"),
    ("queue: {max_bytes: 0}", "queue.max_bytes", "0 is out of range; write a size above 0"),
    ("queue: {max_bytes: 0MiB}", "queue.max_bytes", "'0MiB' is out of range"),
    ("queue: {max_bytes: -5}", "queue.max_bytes", "-5 is out of range"),
    (
        "queue: {max_bytes: 16MiBs}",
        "queue.max_bytes",
        "'16MiBs' is not a size; write a number of bytes, or a size",
    ),
    ("queue: {max_bytes: 1.5}", "queue.max_bytes", "1.5 is not a size"),
    ("queue: {max_bytes: null}", "queue.max_bytes", "null is not a size"),
    ("queue: {max_messages: 0}", "queue.max_messages", "0 is out of range"),
    ("queue: {max_messages: on}", "queue.max_messages", "true is not a whole number"),
    ("queue: {max_messages: many}", "queue.max_messages", "'many' is not a whole number"),
    (
        "queue: {overflow: drop}",
        "queue.overflow",
        "'drop' is not a choice; write 'auto', 'spill', 'conflate'",
    ),
    ("queue: {overflow: conflate}", "queue.overflow", "conflate keeps the latest event alone"),
    (
        "exchange: {connects_per_5min: 301}",
        "exchange.connects_per_5min",
        "Binance bans an address after 300, not 301; write 150",
    ),
    ("exchange: {rotate_after_s: 0}", "exchange.rotate_after_s", "0 is out of range; write a duration"),
    ("queue: 5", "queue", "5 is not a mapping of keys; indent its keys below it"),
    ("journal: 5", "journal", "5 is not a mapping of keys"),
    ("journal: {max_bytes: 0}", "journal.max_bytes", "0 is out of range"),
    ("journal: {directory: ../x}", "journal.directory", "'../x' is not a full path"),
    ("journal: {directory: /a/../b}", "journal.directory", "'/a/../b' is not a full path"),
    ("journal: off\nqueue: {overflow: spill}", "queue.overflow", "is to spill, but its journal is off"),
    ("nats: {subject: a b}", "nats.subject", "'a b' has a space"),
    ("nats: {subject: 'a.*'}", "nats.subject", "'a.*' has a wildcard"),
    ("nats: {subject: 'a.>'}", "nats.subject", "'a.>' has a wildcard"),
    ("nats: {subject: '$JS.API.x'}", "nats.subject", "'$JS.API.x' lies below $JS."),
    ("nats: {subject: '$SYS.x'}", "nats.subject", "'$SYS.x' lies below $SYS."),
    ("nats: {subject: sluice.x}", "nats.subject", "'sluice.x' lies below sluice., which Sluice keeps"),
    ("nats: {subject: a..b}", "nats.subject", "'a..b' has an empty word"),
    ("nats: {subject: ''}", "nats.subject", "'' has an empty word"),
    ("nats: {subject: 'a.{coin}'}", "nats.subject", "has an unknown field {coin}; write fields as {venue}"),
    ("nats: {headers: false}", "nats.headers", "JetStream tells repeats by a header"),
    ("nats: {servers: []}", "nats.servers", "the list is empty"),
    ("nats: {servers: 5}", "nats.servers", "5 is not a list"),
    ("nats: {servers: [http://h]}", "nats.servers[0]", "'http://h' does not begin with nats://"),
    ("nats: {user: me}", "nats.user", "a user needs a password"),
    ("nats: {password: '${PASSWORD}'}", "nats.user", "it is missing beside the password"),
    ("nats: {token_file: /a, creds_file: /b}", "nats.creds_file", "nats.token_file is another way to log in"),
    ("nats: {creds_file: b}", "nats.creds_file", "'b' is not a full path"),
    ("nats: {tls_handshake_first: 5}", "nats.tls_handshake_first", "5 is neither true nor false"),
    ("nats: {stream: {max_age_s: 0}}", "nats.stream.max_age_s", "0 is out of range"),
    ("nats: {stream: {max_age_s: soon}}", "nats.stream.max_age_s", "'soon' is not a duration"),
    (
        "nats: {stream: {max_age_s: 1m}}",
        "nats.stream.duplicate_window_s",
        "120 s is longer than nats.stream.max_age_s",
    ),
    ("nats: {stream: {replicas: 6}}", "nats.stream.replicas", "6 copies are more than NATS keeps"),
    ("exchange: {venue: SPOT}", "exchange.venue", "'SPOT' is not a choice; write 'spot', 'usdm' or 'coinm'"),
    ("exchange: {url: 'http://h'}", "exchange.url", "'http://h' does not begin with ws://, wss://"),
    (
        "exchange: {url: 'wss://dstream.binance.com'}",
        "exchange.url",
        "serves coinm, but 'btcusdt@trade' is to come",
    ),
    ("publishers: {max: 3}", "publishers.max", "3 publishers are more than the streams, 2; write at most 2"),
    ("publishers: {scale: 3}", "publishers.scale", "3 publishers are more than the streams, 2"),
    ("publishers: {min: 3}", "publishers.min", "3 publishers are more than the streams, 2"),
    ("publishers: {min: 2, max: 1}", "publishers.min", "2 is more than publishers.max, 1"),
    (
        "publishers: {max: 1, scale: 2}",
        "publishers.scale",
        "2 is not between publishers.min, 1, and publishers.max",
    ),
    ("publishers: {scale: 0}", "publishers.scale", "0 is out of range"),
    ("publishers: {scale: fast}", "publishers.scale", "'fast' is neither auto nor a number"),
    (
        "profile: huge",
        "profile",
        "'huge' is not a choice; write 'conservative', 'recommended' or 'aggressive'",
    ),
    ("resources: {stream_nodes: 'a b'}", "resources.stream_nodes", "'a b' is no value of a node's label"),
    ("resources: {stream_cpus: -1}", "resources.stream_cpus", "-1 is not a number of CPU cores"),
    (
        "resources: {stream_cpus: '${UNSET}'}",
        "resources.stream_cpus",
        "environment variable UNSET is not set",
    ),
]


@pytest.mark.parametrize(("text", "path", "message"), REFUSED)
def test_wrong_input_is_refused_with_its_path_and_value(text: str, path: str, message: str) -> None:
    error = refusal(TWO + text)
    assert error.path == path
    assert message in f"{error.problem}; {error.remedy}"


REFUSED_SHARDS = [
    ("", "shards", "no streams are listed"),
    ("[]", "shards", "no streams are listed"),
    ("btcusdt@trade", "shards", "'btcusdt@trade' is not a list"),
    ("[5]", "shards[0]", "5 is not a stream"),
    ("[a@trade, {}]", "shards[1].stream", "it is missing"),
    ("[{steam: a@trade}]", "shards[0].steam", "unknown key; write stream"),
    ("[{stream: a@trade, overflow: block}]", "shards[0].overflow", "unknown key; write it below queue"),
    ("[{stream: 5}]", "shards[0].stream", "5 is not text"),
    ("[a@trade, b@trade, a@trade]", "shards[2].stream", "'a@trade' is listed at shards[0] already"),
    ("[a@trade, a@fundingRate@1s]", "shards[1].stream", "'a@fundingRate@1s' is not a stream of usdm"),
    ("[BTCUSDT@trade]", "shards[0].stream", "'BTCUSDT@trade' has an upper-case symbol; write btcusdt@trade"),
    ("[a@aggtrade]", "shards[0].stream", "'a@aggtrade' is not a stream of usdm; write a@aggTrade"),
    ("[a@trade, {stream: b@trade, queue: {max_bytes: 0}}]", "shards[1].queue.max_bytes", "0 is out of range"),
    (
        "[{stream: a@trade, queue: {overflow: conflate}}]",
        "shards[0].queue.overflow",
        "conflate keeps the latest",
    ),
    ("[{stream: a@trade, queue: 5}]", "shards[0].queue", "5 is not a mapping"),
    (
        "[{stream: a@trade, venue: spot, exchange: {venue: coinm}}]",
        "shards[0].venue",
        "spot is not exchange.venue",
    ),
    (
        "[{stream: a@trade, exchange: {url: 'wss://dstream.binance.com'}}]",
        "shards[0].exchange.url",
        "serves coinm",
    ),
    (
        "[{stream: a@trade, journal: off}]\nqueue: {overflow: spill}",
        "shards[0].journal",
        "'a@trade' is to spill, but its journal is off",
    ),
]


@pytest.mark.parametrize(("shards", "path", "message"), REFUSED_SHARDS)
def test_a_wrong_shard_is_refused_with_its_place_in_the_list(shards: str, path: str, message: str) -> None:
    error = refusal(f"shards: {shards}")
    assert error.path == path
    assert message in f"{error.problem}; {error.remedy}"


@pytest.mark.parametrize(
    "text",
    [
        "nats: {user: me, password: hunter2}",
        "nats: {token: hunter2}",
        "nats: {user: me, password: '${UNSET:-hunter2}'}",
        "nats: {user: me, password: '${PASSWORD:-hunter2}'}",
        "nats: {servers: ['nats://me:hunter2@${HOST}']}",
        "nats: {servers: ['nats://me:${PASSWORD:-hunter2}@h']}",
        "nats: {servers: ['${NATS:-nats://me:hunter2@h}']}",
        "nats: {servers: ['nats://me:hunter2@h']}",
        "nats: {servers: 'nats://me:hunter2/@h'}",
        "nats: {servers: ['http://me:hunter2@h'], token: '${PASSWORD}'}",
        "nats: {servers: ['http://me:${PASSWORD}@h']}",
        "exchange: {url: 'wss://me:hunter2@h'}",
        "exchange: {url: 'me:hunter2@h'}",
        "exchange: {rest_url: 'https://me:hunter2@h'}",
        "nats: {passwort: hunter2}",
    ],
)
def test_no_refusal_shows_a_secret(text: str) -> None:
    found = refusal(TWO + text, HOST="h", NATS="nats://me:other@h")
    assert "hunter2" not in str(found)


KEYS = [
    *Config.model_fields,
    *("venue", "url", "servers", "subject", "stream", "min", "max", "scale", "max_bytes", "overflow"),
    *("enabled", "silence_limit_s", "max_age_s", "password", "directory", "critical", "rest_url"),
]
WORDS = ["auto", "off", "16MiB", "24h", "${HOME}", "btcusdt@trade", "ethusdt@depth", "spot", "block"]
NUMBERS = st.integers() | st.floats()
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=12) | st.sampled_from(WORDS)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=15,
)


def assert_parsed_or_refused(text: str) -> None:
    try:
        config = parse(text)
    except ConfigError as error:
        assert error.problem and error.remedy
        assert str(error).isprintable()
    else:
        assert config.streams
        assert all(one.subject and one.url for one in config.streams)


@settings(deadline=None)
@given(st.text(st.characters()))
def test_any_text_is_a_config_or_is_refused(text: str) -> None:
    assert_parsed_or_refused(text)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), TREES, max_size=4))
@example({"shards": ["btcusdt@trade"]})
def test_any_tree_of_known_keys_is_a_config_or_is_refused(tree: dict[str, Any]) -> None:
    assert_parsed_or_refused(yaml.safe_dump({"shards": ["btcusdt@trade"]} | tree, allow_unicode=True))


@settings(deadline=None)
@given(st.text(st.characters(), max_size=30))
def test_any_subject_that_is_accepted_is_a_subject_to_nats(template: str) -> None:
    try:
        [one] = parse("shards: [btcusdt@trade]", NATS_TOPIC=template).streams
    except ConfigError:
        return
    tokens = one.subject.split(".")
    assert all(tokens)
    assert not any(character.isspace() or character in "*>" for character in one.subject)
    assert tokens[0] not in ("sluice", "$JS", "$SYS")
