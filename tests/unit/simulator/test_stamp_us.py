"""The unit of the times in simulated events."""

from __future__ import annotations

import json

import pytest

from simulator.catalog import Catalog
from simulator.channel import Channel
from simulator.settings import ExchangeSettings

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
