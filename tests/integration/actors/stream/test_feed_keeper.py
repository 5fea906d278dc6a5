"""One stream's connections over time, against the simulated exchange: handovers, probes, the budget."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from actors.stream.connect_gate import ConnectGate
from actors.stream.feed_keeper import FeedKeeper
from relay.binance.connect_budget import AttemptOutcome, BudgetClaim
from relay.binance.connect_budget_file import ConnectBudgetFile
from relay.config import StreamSettings, parse_config
from relay.feed.timing import DEFAULT_TIMING, FeedTiming
from relay.primitives.backoff import Backoff
from simulator.server import ExchangeServer
from simulator.settings import ExchangeSettings
from tests.support.polling import until_async

TRADES, STATES = "btcusdt@trade", "btcusdt@depth20@100ms"


def run(case: Callable[[], Awaitable[None]]) -> None:
    async def within_deadline() -> None:
        async with asyncio.timeout(60):
            await case()

    asyncio.run(within_deadline())


@asynccontextmanager
async def exchange(**settings: Any) -> AsyncIterator[ExchangeServer]:
    settings.setdefault("close_timeout_s", 0.2)
    async with ExchangeServer(ExchangeSettings(**settings)) as server:
        yield server


def stream(url: str, name: str, *, budget: int = 300, streams: int = 1, **more: object) -> StreamSettings:
    keys = "".join(f", {key}: {value}" for key, value in more.items())
    text = f"exchange: {{url: '{url}', connects_per_5min: {budget}{keys}}}\nshards: [{name}]"
    return parse_config(text, {"HOME": "/h"}).streams[0].model_copy(update={"streams": streams})


@pytest.mark.parametrize("name", [TRADES, STATES])
def test_what_comes_in_a_read_pause_is_read_at_its_end(name: str, tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={"*": 500.0}) as server:
            keeper = Keeper(stream(server.url, name), tmp_path)
            async with keeper.running():
                for _ in range(20):
                    read = len(keeper.payloads)
                    keeper.feed.pause_reads_for(0.01)
                    await until_async(lambda: len(keeper.payloads) > read)  # noqa: B023
                await same_as_sent(server, keeper, name)

    run(case)


def test_a_pause_outlasts_the_read_pause_in_which_it_began(tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={"*": 500.0}) as server:
            keeper = Keeper(stream(server.url, TRADES), tmp_path)
            async with keeper.running():
                await until_async(lambda: len(keeper.payloads) > 5)
                loop = asyncio.get_running_loop()
                over: asyncio.Future[None] = loop.create_future()
                keeper.feed.pause_reads_for(0.05)
                keeper.feed.pause()
                read = len(keeper.payloads)
                # Of two timers the one that is due first runs first.
                loop.call_later(0.06, over.set_result, None)
                await over
                sent = server.sent()[TRADES].events
                await until_async(lambda: server.sent()[TRADES].events > sent + 20)
                assert len(keeper.payloads) == read
                keeper.feed.resume()
                await same_as_sent(server, keeper, TRADES)

    run(case)


class Keeper:
    """A FeedKeeper whose owner accepts every read, and looks after it more often than once a second."""

    def __init__(self, settings: StreamSettings, ledger: Path, timing: FeedTiming = DEFAULT_TIMING) -> None:
        self.claim = BudgetClaim(settings.spec.key, settings.connects_per_5min, settings.streams, True)
        gate = ConnectGate(ConnectBudgetFile(ledger), self.claim)
        self.payloads: list[bytes] = []
        self.disconnected = 0
        self.feed = FeedKeeper(settings, gate, self._take, self._note_disconnected, timing)

    def _take(self, payloads: list[bytes], recv_ns: int) -> None:
        notices = [payload for payload in payloads if b"serverShutdown" in payload]
        events = [payload for payload in payloads if payload not in notices]
        self.payloads += events
        if events:
            self.feed.delivered()
        if notices:
            self.feed.renew("the exchange announced its shutdown")

    def _note_disconnected(self) -> None:
        self.disconnected += 1

    @property
    def digest(self) -> str:
        total = blake2b(digest_size=16)
        for payload in self.payloads:
            total.update(len(payload).to_bytes(4, "big") + payload)
        return total.hexdigest()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Keeper]:
        tasks = [asyncio.create_task(self.feed.run()), asyncio.create_task(self._look_after())]
        try:
            yield self
        finally:
            self.feed.close("the test is over")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_after(self) -> None:
        while True:
            self.feed.check(time.monotonic())
            await asyncio.sleep(0.02)


async def same_as_sent(server: ExchangeServer, keeper: Keeper, name: str) -> None:
    """Every event once, in order, byte for byte."""
    await server.stop_traffic()
    sent = server.sent()[name]
    await until_async(lambda: len(keeper.payloads) >= sent.events)
    assert (len(keeper.payloads), keeper.digest) == (sent.events, sent.digest)
    assert (keeper.disconnected, keeper.feed.reconnects, keeper.feed.unaligned, sent.unseen) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "rate_per_s"),
    [
        pytest.param(TRADES, 300.0, id="ids"),
        pytest.param("btcusdt@depth@100ms", 100.0, id="chained ids"),
        pytest.param(STATES, 100.0, id="states"),
        # Several of these carry the same millisecond, and so the same bytes.
        pytest.param("btcusdt@markPrice@1s", 3000.0, id="equal payloads"),
        pytest.param("btcusdt@bookTicker", 500.0, id="book tickers"),
    ],
)
def test_connections_replaced_by_their_age_lose_and_repeat_nothing(
    name: str, rate_per_s: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def case() -> None:
        async with exchange(rates={name: rate_per_s}) as server:
            keeper = Keeper(stream(server.url, name, rotate_after_s="200ms"), tmp_path)
            async with keeper.running():
                await until_async(lambda: keeper.feed.rotations >= 4)
                await same_as_sent(server, keeper, name)
                await until_async(lambda: len(server.clients) == 1)

    with caplog.at_level(logging.INFO):
        run(case)
    lines = [record.getMessage() for record in caplog.records if "replaced the conn" in record.getMessage()]
    assert len(lines) >= 4
    assert all("0 lost, 0 repeated" in line and "s old" in line for line in lines)


def test_a_connection_is_replaced_before_the_exchange_ends_it(tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={STATES: 100.0}, lifetime_s=1.0) as server:
            keeper = Keeper(stream(server.url, STATES, rotate_after_s="600ms"), tmp_path)
            async with keeper.running():
                await until_async(lambda: keeper.feed.rotations >= 3)
                await same_as_sent(server, keeper, STATES)

    run(case)


@pytest.mark.parametrize("name", [TRADES, STATES])
def test_an_announced_shutdown_costs_nothing(name: str, tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={name: 200.0}) as server:
            keeper = Keeper(stream(server.url, name), tmp_path)
            async with keeper.running():
                for rotations in (1, 2, 3):
                    await until_async(lambda: len(server.clients) == 1 and keeper.feed.delivering)
                    server.shutdown_notice(name, close_after_s=0.3)
                    await until_async(lambda wanted=rotations: keeper.feed.rotations == wanted)
                    await until_async(lambda: len(server.clients) == 1)
                await same_as_sent(server, keeper, name)

    run(case)


def test_an_old_connection_that_ends_amid_the_change_is_joined_by_what_it_brought(tmp_path: Path) -> None:
    """The successor shows again what the old one delivered last, so there is no gap."""

    async def case() -> None:
        async with exchange(rates={STATES: 0.0}) as server:
            keeper = Keeper(stream(server.url, STATES), tmp_path)
            async with keeper.running():
                await server.wait_subscribed(STATES)
                server.emit(STATES, 1)
                await until_async(lambda: len(keeper.payloads) == 1)
                first = next(iter(server.clients))
                server.shutdown_notice(STATES)
                await until_async(lambda: len(server.clients) == 2)
                server.emit(STATES, 1)
                await until_async(lambda: len(keeper.payloads) == 2)
                first.abort()
                await until_async(lambda: keeper.feed.rotations == 1)
                server.emit(STATES, 3)
                await same_as_sent(server, keeper, STATES)

    run(case)


@pytest.mark.parametrize("name", [TRADES, STATES])
def test_a_stream_that_only_an_old_socket_does_not_get_is_dead_there(name: str, tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={name: 100.0}) as server:
            keeper = Keeper(stream(server.url, name, silence_limit_s="500ms"), tmp_path)
            async with keeper.running():
                await until_async(lambda: len(keeper.payloads) > 20)
                server.silence(name)
                before, at = len(keeper.payloads), time.monotonic()
                await until_async(lambda: len(keeper.payloads) > before + 20)
                assert time.monotonic() - at < 5.0
                assert (keeper.feed.silences, keeper.feed.reconnects, keeper.disconnected) == (1, 0, 1)
                await until_async(lambda: server.catalog.channels[name].subscribers == 1)

    run(case)


def test_a_dead_stream_takes_the_other_half_of_the_budget_too(tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={TRADES: 100.0}) as server:
            keeper = Keeper(stream(server.url, TRADES, budget=4, silence_limit_s="300ms"), tmp_path)
            with ConnectBudgetFile(tmp_path).opened() as log:
                assert log.try_acquire(keeper.claim, time.monotonic(), low_priority=False) == 0.0
                log.record_outcome(log.granted, AttemptOutcome.OPENED)
            async with keeper.running():
                await until_async(lambda: len(keeper.payloads) > 20)
                server.silence(TRADES)
                await until_async(lambda: "no room" in keeper.feed.last_error)
                before = len(keeper.payloads)
                await until_async(lambda: len(keeper.payloads) > before + 20)
                assert (keeper.feed.silences, keeper.feed.reconnects) == (1, 0)

    run(case)


def test_a_quiet_market_costs_second_connections_ever_more_seldom_and_no_loss(tmp_path: Path) -> None:

    async def case() -> None:
        async with exchange(rates={STATES: 0.0}) as server:
            keeper = Keeper(
                stream(server.url, STATES, silence_limit_s="300ms"),
                tmp_path,
                FeedTiming(min_probe_s=0.2, subscribed_s=0.2),
            )
            async with keeper.running():
                await server.wait_subscribed(STATES)
                server.emit(STATES, 5)
                times: list[float] = []
                for attempts in (2, 3):
                    await until_async(lambda wanted=attempts: server.handshake_limiter.attempts == wanted)
                    times.append(time.monotonic())
                    await until_async(lambda: len(server.clients) == 1)
                assert times[1] - times[0] > 0.85, "0.3 s beside the first, and the limit of 0.6 s after it"
                server.emit(STATES, 5)
                await same_as_sent(server, keeper, STATES)
                assert (keeper.feed.silences, keeper.feed.rotations) == (0, 0)

    run(case)


class Scripted:
    """An exchange of trades that sends on each connection what the test gives it."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        async with serve(self._serve, "127.0.0.1", 0, compression=None) as server:
            yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        await connection.wait_closed()

    async def send(self, to: int, *numbers: int) -> None:
        for number in numbers:
            await self.connections[to].send(
                f'{{"e":"trade","E":1,"T":1,"s":"BTCUSDT","t":{number},"p":"1","q":"2","m":true}}'
            )


def test_a_connection_without_first_data_is_left_for_one_that_has_some(tmp_path: Path) -> None:

    async def case() -> None:
        exchange = Scripted()
        async with exchange.serving() as url:
            keeper = Keeper(
                stream(url, TRADES, silence_limit_s="100ms"), tmp_path, FeedTiming(subscribed_s=0.3)
            )
            async with keeper.running():
                await until_async(lambda: len(exchange.connections) == 2)
                assert not keeper.feed.delivering
                await exchange.send(1, 1, 2, 3)
                await until_async(lambda: len(keeper.payloads) == 3)
                assert (keeper.feed.silences, keeper.feed.reconnects) == (1, 0)

    run(case)


@pytest.mark.parametrize(
    ("then", "taken", "disconnected"),
    [
        pytest.param((3, 4, 5, 6, 7), [1, 2, 3, 4, 5, 6, 7], 0, id="it catches up"),
        pytest.param((6, 7), [1, 2, 3, 4, 5, 6, 7], 1, id="it skips what the old one had"),
    ],
)
def test_a_successor_that_lags_behind_repeats_nothing(
    then: tuple[int, ...], taken: list[int], disconnected: int, tmp_path: Path
) -> None:
    async def case() -> None:
        exchange = Scripted()
        async with exchange.serving() as url:
            keeper = Keeper(stream(url, TRADES), tmp_path)
            async with keeper.running():
                await until_async(lambda: len(exchange.connections) == 1)
                await exchange.connections[0].send('{"e":"serverShutdown","E":1}')
                await until_async(lambda: len(exchange.connections) == 2)
                await exchange.send(0, 1, 2, 3, 4, 5)
                await until_async(lambda: len(keeper.payloads) == 5)
                await exchange.send(1, 2)
                await until_async(lambda: keeper.feed.rotations == 1)
                await exchange.send(1, *then)
                await until_async(lambda: len(keeper.payloads) >= 7)
                assert [orjson.loads(payload)["t"] for payload in keeper.payloads] == taken
                assert keeper.disconnected == disconnected

    run(case)


class Wire:
    """Forwards TCP to the exchange; the connections of now can be made to carry nothing more."""

    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self._held: set[asyncio.Event] = set()
        self._flows: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def go_silent(self) -> None:
        for flow in self._flows:
            flow.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        flow = asyncio.Event()
        flow.set()
        self._flows.append(flow)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(flow, reader, back))
                group.create_task(self._carry(flow, there, writer))
        finally:
            writer.transport.abort()
            back.transport.abort()

    async def _carry(
        self, flow: asyncio.Event, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await flow.wait()
                writer.write(data)
        writer.transport.abort()


def test_a_half_open_connection_is_left_though_the_market_is_quiet(tmp_path: Path) -> None:
    """It does not answer a ping, and a new one opens."""

    async def case() -> None:
        async with exchange(rates={TRADES: 0.0}) as server, Wire(server.url) as wire:
            keeper = Keeper(
                stream(wire.url, TRADES, silence_limit_s="300ms"), tmp_path, FeedTiming(min_probe_s=0.2)
            )
            async with keeper.running():
                await server.wait_subscribed(TRADES)
                server.emit(TRADES, 5)
                await until_async(lambda: len(keeper.payloads) == 5)
                wire.go_silent()
                await until_async(lambda: keeper.feed.silences == 1)
                server.emit(TRADES, 5)
                await until_async(lambda: len(keeper.payloads) == 10)
                assert keeper.feed.reconnects == 0

    run(case)


def test_two_connections_that_cannot_be_aligned_are_replaced_with_a_word(tmp_path: Path) -> None:
    """An exchange that stamps each socket's copy apart."""

    async def case() -> None:
        sockets = itertools.count()

        async def handler(socket: ServerConnection) -> None:
            own = next(sockets)
            with suppress(ConnectionClosed):
                for number in itertools.count():
                    await socket.send(f'{{"e":"24hrTicker","s":"BTCUSDT","E":{number},"c":"{own}"}}')
                    await asyncio.sleep(0.01)

        async with serve(handler, "127.0.0.1", 0, compression=None) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            limits = {"silence_limit_s": "300ms", "rotate_after_s": "300ms"}
            keeper = Keeper(stream(url, "btcusdt@ticker", **limits), tmp_path, FeedTiming(align_s=0.3))
            async with keeper.running():
                await until_async(lambda: keeper.feed.unaligned == 2)
                assert keeper.disconnected == 2
                assert (keeper.feed.rotations, keeper.feed.reconnects) == (0, 0)
                assert "without an overlap" in keeper.feed.last_error
                await until_async(lambda: any(b'"c":"2"' in payload for payload in keeper.payloads))
                order = [payload.partition(b'"c":')[2] for payload in keeper.payloads]
                assert order == sorted(order), "two sockets' events are never mixed"

    run(case)


def test_without_a_second_connection_the_first_goes_on(tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={STATES: 100.0}) as server:
            keeper = Keeper(stream(server.url, STATES, rotate_after_s="300ms"), tmp_path)
            async with keeper.running():
                await until_async(lambda: len(keeper.payloads) > 5)
                server.refuse(503)
                await until_async(lambda: "no second connection" in keeper.feed.last_error)
                before = len(keeper.payloads)
                await until_async(lambda: len(keeper.payloads) > before + 20)
                await same_as_sent(server, keeper, STATES)

    run(case)


def test_a_shutdown_is_survived_though_the_exchange_refuses_for_a_while(tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={STATES: 100.0}) as server:
            keeper = Keeper(stream(server.url, STATES), tmp_path)
            async with keeper.running():
                await until_async(lambda: len(keeper.payloads) > 5)
                server.refuse(503, count=2)
                server.shutdown_notice()
                await until_async(lambda: keeper.feed.rotations == 1)
                assert server.handshake_limiter.attempts == 4
                await same_as_sent(server, keeper, STATES)

    run(case)


def test_a_change_under_way_is_given_up_when_reading_pauses(tmp_path: Path) -> None:
    """A socket that nobody reads is silent for another reason."""

    async def case() -> None:
        async with exchange(rates={STATES: 0.0}) as server:
            keeper = Keeper(stream(server.url, STATES), tmp_path)
            async with keeper.running():
                await server.wait_subscribed(STATES)
                server.shutdown_notice()
                await until_async(lambda: len(server.clients) == 2)
                keeper.feed.pause()
                await until_async(lambda: len(server.clients) == 1)
                server.emit(STATES, 20)
                keeper.feed.resume()
                await same_as_sent(server, keeper, STATES)
                assert keeper.feed.rotations == 0

    run(case)


def test_rotations_wait_while_half_of_the_budget_is_used(tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={STATES: 100.0}) as server:
            keeper = Keeper(stream(server.url, STATES, budget=4, rotate_after_s="100ms"), tmp_path)
            async with keeper.running():
                await until_async(lambda: "no room" in keeper.feed.last_error)
                assert server.handshake_limiter.attempts == 2
                await same_as_sent(server, keeper, STATES)

    run(case)


CHANNELS = ("trade", "ticker", "depth")
SIX = tuple(f"{symbol}@{channel}" for symbol in ("btcusdt", "ethusdt") for channel in CHANNELS)


def test_streams_cut_off_together_come_back_within_one_budget(tmp_path: Path) -> None:
    async def case() -> None:
        async with exchange(rates={"*": 50.0}, connects_per_5min=20) as server:
            keepers = [Keeper(stream(server.url, name, budget=20, streams=6), tmp_path) for name in SIX]
            async with asyncio.TaskGroup() as group:
                hosts = [keeper.running() for keeper in keepers]
                for host in hosts:
                    await host.__aenter__()
                await until_async(lambda: all(keeper.feed.delivering for keeper in keepers))
                server.close_sockets(code=1006)
                await until_async(lambda: all(keeper.feed.reconnects for keeper in keepers))
                await until_async(lambda: all(keeper.feed.delivering for keeper in keepers))
                assert server.handshake_limiter.attempts == 12
                server.refuse(503)
                server.close_sockets(code=1006)
                await until_async(lambda: server.handshake_limiter.attempts == 12 + 20 // 5)
                with ConnectBudgetFile(tmp_path).opened() as log:
                    for keeper in keepers:
                        assert log.try_acquire(keeper.claim, time.monotonic(), low_priority=False) > 30.0
                for host in hosts:
                    group.create_task(host.__aexit__(None, None, None))

    run(case)


def test_a_connection_that_can_wait_leaves_half_of_the_budget_and_comes_at_once_when_it_is_needed(
    tmp_path: Path,
) -> None:
    async def case() -> None:
        async with exchange(rates={"*": 100.0}) as server:
            keeper = Keeper(stream(server.url, TRADES, budget=4), tmp_path)
            with ConnectBudgetFile(tmp_path).opened() as log:
                for _ in range(2):
                    assert log.try_acquire(keeper.claim, time.monotonic(), low_priority=False) == 0.0
                    log.record_outcome(log.granted, AttemptOutcome.OPENED)
            keeper.feed.low_priority = True
            async with keeper.running():
                await until_async(lambda: keeper.feed.reconnects >= 3)
                assert "no room" in keeper.feed.last_error
                assert not keeper.feed.connected and server.handshake_limiter.attempts == 0
                # The next attempt would be seconds away.
                keeper.feed._backoff = Backoff(30.0, 30.0, random.Random(1))
                await until_async(lambda: keeper.feed.reconnects >= 4)
                keeper.feed.expedite()
                await until_async(lambda: keeper.feed.connected)
                assert not keeper.feed.low_priority

    run(case)


def test_a_reader_that_pauses_for_long_gives_the_socket_up_and_comes_back_when_it_reads(
    tmp_path: Path,
) -> None:

    async def case() -> None:
        async with exchange(rates={"*": 100.0}) as server:
            keeper = Keeper(stream(server.url, TRADES), tmp_path, FeedTiming(max_pause_s=0.1))
            async with keeper.running():
                await until_async(lambda: len(keeper.payloads) > 5)
                keeper.feed.pause()
                await until_async(lambda: not server.clients)
                assert keeper.disconnected == 1
                keeper.feed.resume()
                read = len(keeper.payloads)
                await until_async(lambda: len(keeper.payloads) > read + 5)
                assert keeper.feed.reconnects == 1

    run(case)
