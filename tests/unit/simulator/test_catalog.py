"""Which streams flow and from when on, at which rates, with which stamps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relay.errors import UsageError
from simulator.catalog import Catalog
from simulator.channel import Channel
from simulator.replay import load_recording
from simulator.settings import ExchangeSettings
from tests.support.recordings import LINES, recorded

NOW_NS = 1_700_000_000_123_456_789


class Reader:
    paused = False

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def push(self, channel: Channel, payloads: list[bytes]) -> bool:
        self.payloads += payloads
        return True


@pytest.mark.parametrize(
    ("stream", "stamp_us", "stamp"),
    [
        ("btcusdt@trade", False, 1_700_000_000_123),
        ("btcusdt@trade", True, 1_700_000_000_123_456),
        ("btcusdt@aggTrade", True, 1_700_000_000_123_456),
        ("btcusdt@ticker", True, 1_700_000_000_123),
    ],
)
def test_trades_alone_are_stamped_in_microseconds(stream: str, stamp_us: bool, stamp: int) -> None:
    catalog = Catalog(ExchangeSettings(rates={"*": 1.0}, stamp_us=stamp_us), None)
    reader, channel = Reader(), catalog.ensure(stream, 0.0)
    channel.add(reader)
    catalog.start(0.0)
    channel.step(5.0, NOW_NS, 10)
    assert reader.payloads
    assert {json.loads(payload)["E"] for payload in reader.payloads} == {stamp}


def test_a_recording_starts_once_all_its_streams_have_a_subscriber(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.gz", LINES)
    catalog = Catalog(ExchangeSettings(recording=path, expected=("*",)), load_recording(path))
    catalog.subscribed("btcusdt@trade", 1.0)
    assert not catalog.started
    catalog.subscribed("btcusdt@bookTicker", 2.0)
    assert catalog.started
    assert {name: channel.due_s for name, channel in catalog.channels.items()} == {
        "btcusdt@trade": 2.0,
        "btcusdt@bookTicker": 4.0,
    }


def test_a_recording_shows_its_own_streams_alone_and_cannot_be_flooded(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.gz", LINES)
    catalog = Catalog(ExchangeSettings(recording=path), load_recording(path))
    assert catalog.has_data("btcusdt@trade", "public")
    assert not catalog.has_data("btcusdt@trade", "market")
    assert not catalog.has_data("ethusdt@trade", "public")
    with pytest.raises(UsageError, match="recording"):
        catalog.flood("btcusdt@trade", 5.0, 0.0)


def test_a_flood_told_before_the_first_subscription_holds_from_it_on() -> None:
    catalog = Catalog(ExchangeSettings(), None)
    catalog.flood("btcusdt@trade", 1000.0, 0.0)
    catalog.subscribed("btcusdt@trade", 5.0)
    assert catalog.ensure("btcusdt@trade", 5.0).due_s == 5.0


def test_exact_rates_replace_the_model_for_named_and_for_all_other_streams() -> None:
    catalog = Catalog(ExchangeSettings(rates={"btcusdt@trade": 4.0, "*": 0.0}), None)
    catalog.start(0.0)
    assert catalog.ensure("btcusdt@trade", 0.0).due_s <= 0.25
    assert catalog.ensure("ethusdt@trade", 0.0).due_s == float("inf")
