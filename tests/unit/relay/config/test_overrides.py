"""A rehearsal changes where events come from and go to, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.binance.streams import Venue
from relay.config import parse_config
from relay.config.overrides import venues, with_exchange, with_journal_directory, with_nats
from relay.errors import UsageError

TEXT = """
nats: {servers: ["nats://far:4222"], user: u, password_file: /secret, subject: "md.{symbol}.{channel}"}
shards:
  - btcusdt@trade
  - {stream: ethusdt@trade, venue: spot, journal: {directory: /elsewhere}, queue: {max_messages: 7}}
  - {stream: bnbusdt@trade, exchange: {url: "wss://example.net"}}
"""
CONFIG = parse_config(TEXT, {"HOME": "/home/u"})
URLS = {Venue.SPOT: "ws://127.0.0.1:1", Venue.USDM: "ws://127.0.0.1:2"}


def test_every_stream_comes_from_the_exchange_that_plays_its_venue() -> None:
    assert [one.url for one in with_exchange(CONFIG, URLS).streams] == [
        "ws://127.0.0.1:2/public/ws/btcusdt@trade",
        "ws://127.0.0.1:1/ws/ethusdt@trade",
        "ws://127.0.0.1:2/public/ws/bnbusdt@trade",
    ]


def test_gaps_are_healed_from_the_same_exchange_whatever_else_was_written() -> None:
    real = parse_config(
        "exchange: {rest_url: 'https://fapi.binance.com'}\nshards: [btcusdt@trade,"
        " {stream: ethusdt@trade, exchange: {rest_url: 'https://fapi.binance.com'}}]",
        {"HOME": "/home/u"},
    )
    assert {one.rest_url for one in with_exchange(real, URLS).streams} == {"http://127.0.0.1:2"}


def test_our_own_server_gets_no_login_of_another_and_keeps_the_subjects() -> None:
    moved = with_nats(CONFIG, "nats://127.0.0.1:9")
    assert moved.nats.servers == ("nats://127.0.0.1:9",)
    assert (moved.nats.user, moved.nats.password_file) == (None, None)
    assert [one.subject for one in moved.streams] == [one.subject for one in CONFIG.streams]


def test_every_journal_moves() -> None:
    moved = with_journal_directory(CONFIG, Path("/tmp/x"))
    assert {one.journal_directory for one in moved.streams} == {Path("/tmp/x")}


def test_the_streams_and_their_queues_stay() -> None:
    moved = with_journal_directory(
        with_nats(with_exchange(CONFIG, URLS), "nats://127.0.0.1:9"), Path("/tmp/x")
    )
    assert [(one.spec, one.queue) for one in moved.streams] == [
        (one.spec, one.queue) for one in CONFIG.streams
    ]


def test_streams_are_listed_by_venue() -> None:
    assert venues(CONFIG) == {Venue.USDM: ["btcusdt@trade", "bnbusdt@trade"], Venue.SPOT: ["ethusdt@trade"]}


def test_a_venue_that_nobody_plays_is_refused() -> None:
    with pytest.raises(UsageError, match="no simulated exchange of spot, usdm runs"):
        with_exchange(CONFIG, {})
