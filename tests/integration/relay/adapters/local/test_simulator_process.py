"""The simulated exchange as a child process: controlled over HTTP, and gone afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from relay.adapters.local.simulator_process import SimulatedExchange
from relay.binance.streams import Venue
from relay.errors import FeedError
from tests.support.polling import until

TRADES = "btcusdt@trade"


async def receive(url: str, frames: int) -> int:
    async with connect(f"{url}/public/ws/{TRADES}") as socket:
        for _ in range(frames):
            await asyncio.wait_for(socket.recv(), 10)
    return frames


async def subscribe_then_start(exchange: SimulatedExchange) -> None:
    async with connect(f"{exchange.url}/public/ws/{TRADES}") as socket:
        await asyncio.to_thread(wait_until_subscribed, exchange)
        assert exchange.sent()[TRADES].events == 0
        await asyncio.to_thread(exchange.start_traffic)
        await asyncio.wait_for(socket.recv(), 10)


def wait_until_subscribed(exchange: SimulatedExchange) -> None:
    until(lambda: TRADES in exchange.subscribed(), "the stream has a socket", 10.0)


def test_it_reports_what_it_sent(tmp_path: Path) -> None:
    with SimulatedExchange(Venue.USDM, tmp_path / "log") as exchange:
        received = asyncio.run(receive(exchange.url, 20))
        sent = exchange.stop_traffic(5)[TRADES]
    assert sent.events >= received
    assert len(sent.digest) == 32


def test_held_it_sends_nothing_before_it_is_told_to(tmp_path: Path) -> None:
    with SimulatedExchange(Venue.USDM, tmp_path / "log", hold=True) as exchange:
        asyncio.run(subscribe_then_start(exchange))


def test_a_flood_of_an_unknown_stream_is_refused_with_its_reason(tmp_path: Path) -> None:
    with SimulatedExchange(Venue.USDM, tmp_path / "log") as exchange, pytest.raises(FeedError, match="flood"):
        exchange.flood("nothing@all", 100)


def test_a_setting_that_cannot_be_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    exchange = SimulatedExchange(Venue.USDM, tmp_path / "log", rate_scale=-1)
    with pytest.raises(FeedError, match="is not above 0"):
        exchange.__enter__()


def test_it_does_not_answer_after_its_end(tmp_path: Path) -> None:
    with SimulatedExchange(Venue.USDM, tmp_path / "log") as exchange:
        assert exchange.sent() == {}
    with pytest.raises(FeedError, match="does not answer"):
        exchange.sent()
