"""Both instances of a critical stream, between an exchange that sends what it is given, a publisher and a
server.

The instances run on the test's own loop; an instance is killed by cancelling it, at which its sockets close.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import orjson
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from actors.publisher.actor import PublisherActor, PublisherSettings
from actors.standby.relay import StandbyRelay
from relay.adapters.local.nats_server import EmbeddedNats
from relay.config import Config, parse_config
from relay.errors import FencedError, SteppedDown
from relay.model.assignment import Assignment, PublisherEndpoint
from relay.model.stats import LegState, StreamState
from tests.support.hosts import PlainHost
from tests.support.jetstream import streams_ensured
from tests.support.oracle import Loss, Stored, read_stored

TRADES, BOOKS = "btcusdt@trade", "btcusdt@bookTicker"
both_kinds = pytest.mark.parametrize("name", [TRADES, BOOKS])


def payload(name: str, number: int, mark: int = 0) -> bytes:
    if name == TRADES:
        fields = {"e": "trade", "E": mark, "T": 1, "s": "BTCUSDT", "t": number, "p": "1.0", "q": "2"}
        return orjson.dumps(fields | {"X": "MARKET", "m": True})
    fields = {"e": "bookTicker", "E": mark, "u": number, "s": "BTCUSDT", "b": "1", "B": "2", "a": "3"}
    return orjson.dumps(fields | {"A": "4"})


def number_of(body: bytes) -> int:
    fields = orjson.loads(body)
    return int(fields["t"] if "t" in fields else fields["u"])


class Exchange:
    """`differs` gives each socket payloads of its own."""

    def __init__(self, name: str, *, differs: bool = False) -> None:
        self.sockets: list[ServerConnection] = []
        self.sent = 0
        self._name = name
        self._differs = differs

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Exchange]:
        async with serve(self._serve, "127.0.0.1", 0, compression=None) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            yield self

    async def _serve(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        await socket.wait_closed()
        self.sockets.remove(socket)

    async def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.sent += 1
            for mark, socket in enumerate(tuple(self.sockets)):
                with suppress(ConnectionClosed):
                    await socket.send(payload(self._name, self.sent, mark if self._differs else 0), text=True)


class Pair:
    """The instances by their names, and what they need."""

    def __init__(self, config: Config, host: PlainHost, exchange: Exchange) -> None:
        self.config = config
        self.host = host
        self.exchange = exchange
        self.settings = config.streams[0]
        self.instances: dict[str, StandbyRelay] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.publisher: PublisherActor | None = None

    async def open_publisher(self) -> None:
        settings = PublisherSettings(nats=self.config.nats)
        self.publisher = await asyncio.to_thread(PublisherActor, "p0", settings, self.host)
        stats = await asyncio.to_thread(self.publisher.stats)
        endpoint = PublisherEndpoint(
            publisher="p0", node=self.host.node, unix_path=stats.unix_path, tcp_address=stats.tcp_address
        )
        assignment = Assignment(version=1, publisher="p0", endpoints=(endpoint,))
        self.host.assignments[self.settings.spec.key] = assignment

    def start(self, name: str) -> StandbyRelay:
        instance = self.instances[name] = StandbyRelay(self.settings, self.host, twin=name == "twin")
        self.tasks[name] = asyncio.create_task(instance.run())
        return instance

    async def kill(self, name: str) -> None:
        self.tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self.tasks[name]
        del self.instances[name], self.tasks[name]

    async def started(self) -> tuple[str, str]:
        """The names of the active instance and of the standby, once that is ready."""
        for name in ("stream", "twin"):
            self.start(name)
        await self.until(lambda: len(self.exchange.sockets) == 2)
        return await self.active(), await self.ready()

    async def active(self) -> str:
        return await self.until(
            lambda: self._named(lambda instance: instance.relay is not None and instance._accepting)
        )

    async def ready(self) -> str:
        """The standby instance, once it could take over; something has to be sent for that."""

        def standby() -> str | None:
            return self._named(lambda instance: instance.relay is None and instance.stats().warm.ready)

        async with asyncio.timeout(20):
            while not (found := standby()):
                await self.exchange.send()
                await asyncio.sleep(0.02)
        return found

    def _named(self, fits: Callable[[StandbyRelay], Any]) -> str | None:
        return next((name for name, instance in self.instances.items() if fits(instance)), None)

    async def until(self, met: Callable[[], Any], within_s: float = 20.0) -> Any:
        async with asyncio.timeout(within_s):
            while not (found := met()):
                await self.raise_failures()
                await asyncio.sleep(0.01)
        return found

    async def raise_failures(self) -> None:
        for task in self.tasks.values():
            if task.done():
                await task

    async def settled(self, name: str = "") -> None:
        """Everything that was sent has come to the active instance and is acknowledged."""
        relay = self.instances[name or await self.active()].relay
        assert relay is not None

        def met() -> bool:
            last = relay.window.last_acknowledged
            return last is not None and number_of(last.payloads[0]) == self.exchange.sent

        await self.until(met)

    async def stored(self) -> list[Stored]:
        sources = {self.settings.spec.jetstream_name: self.settings.stored_subject}
        reading = await asyncio.to_thread(read_stored, self.config.nats.servers[0], sources)
        self.losses: list[Loss] = [loss for loss in reading.losses if not loss.healed]
        return reading.events.get(self.settings.spec.key, [])

    async def close(self) -> None:
        for name in tuple(self.tasks):
            await self.kill(name)
        if self.publisher is not None:
            await asyncio.to_thread(self.publisher.stop)


@asynccontextmanager
async def a_pair(
    directory: Path, name: str = TRADES, *, differs: bool = False, delivery: str = "jetstream"
) -> AsyncIterator[Pair]:
    host = PlainHost()
    exchange = Exchange(name, differs=differs)
    with EmbeddedNats(directory / "nats") as server:
        async with exchange.running():
            config = parse_config(
                f'exchange: {{url: "{exchange.url}", heal: false}}\n'
                f'nats: {{servers: ["{server.url}"], delivery: {delivery}}}\n'
                f"journal: {{directory: {directory / 'journal'}}}\n"
                f"shards: [{{stream: {name}, critical: true}}]\n",
                {},
            )
            await streams_ensured(config)
            pair = Pair(config, host, exchange)
            await pair.open_publisher()
            try:
                yield pair
            finally:
                await pair.close()
                host.close()


def assert_whole(stored: list[Stored], last: int) -> None:
    numbers = [number_of(one.payload) for one in stored]
    assert numbers == list(range(numbers[0], last + 1))
    assert numbers[0] <= 2


@both_kinds
def test_the_standby_instance_goes_on_behind_the_last_event_of_the_dead_one(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        async with a_pair(tmp_path, name) as pair:
            active, standby = await pair.started()
            before = pair.instances[active].stats()
            assert (before.leg, before.critical, before.takeovers) == (LegState.HOT, True, 0)
            assert pair.instances[standby].stats().leg is LegState.WARM
            await pair.exchange.send(20)
            await pair.kill(active)
            await pair.exchange.send(20)
            assert await pair.active() == standby
            await pair.exchange.send(20)
            await pair.settled()
            after = pair.instances[standby].stats()
            assert (after.leg, after.takeovers, after.lost, after.balanced) == (LegState.HOT, 1, 0, True)
            stored = await pair.stored()
            assert_whole(stored, pair.exchange.sent)
            assert next(one.seq for one in stored if one.epoch == after.epoch) == 1
            assert pair.losses == []

    caplog.set_level(logging.INFO)
    asyncio.run(play())
    (line,) = [one.getMessage() for one in caplog.records if "took over" in one.getMessage()]
    assert "; 0 lost" in line


@both_kinds
def test_roles_change_as_often_as_it_takes(tmp_path: Path, name: str) -> None:
    async def play() -> None:
        async with a_pair(tmp_path, name) as pair:
            active, standby = await pair.started()
            for count in range(1, 4):
                await pair.kill(active)
                await pair.exchange.send(5)
                assert await pair.active() == standby
                pair.start(active)
                active, standby = standby, await pair.ready()
                assert pair.instances[active].takeovers == count
            await pair.settled()
            assert_whole(await pair.stored(), pair.exchange.sent)
            assert pair.losses == []

    asyncio.run(play())


def test_two_sockets_that_differ_are_joined_by_time_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there are no ids: the same states by other bytes, as far as anybody can see."""

    async def play() -> None:
        async with a_pair(tmp_path, BOOKS, differs=True) as pair:
            active, _ = await pair.started()
            await pair.exchange.send(10)
            await pair.settled()
            await pair.kill(active)
            await pair.exchange.send(10)
            await pair.active()
            await pair.settled()
            numbers = [number_of(one.payload) for one in await pair.stored()]
            assert set(numbers) == set(range(numbers[0], pair.exchange.sent + 1))
            assert [loss.cause for loss in pair.losses] == ["disconnect"]

    asyncio.run(play())
    assert any("may be missing or repeated" in one.getMessage() for one in caplog.records)


def test_a_standby_instance_whose_socket_was_cut_is_not_ready_until_nothing_of_that_is_missed(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        async with a_pair(tmp_path) as pair:
            active, standby = await pair.started()
            before = pair.instances[standby].feed.reconnects
            pair.instances[standby].feed.close("the test cuts it")
            await pair.until(lambda: pair.instances[standby].feed.reconnects > before)
            assert not pair.instances[standby].stats().warm.ready
            await pair.exchange.send(5)
            assert await pair.ready() == standby
            await pair.kill(active)
            await pair.exchange.send(5)
            await pair.active()
            await pair.settled()
            assert_whole(await pair.stored(), pair.exchange.sent)
            assert pair.losses == []

    asyncio.run(play())


@both_kinds
def test_an_active_instance_that_lost_its_socket_leaves_to_the_standby(tmp_path: Path, name: str) -> None:
    async def play() -> None:
        async with a_pair(tmp_path, name) as pair:
            active, standby = await pair.started()
            await pair.until(lambda: pair.instances[active]._peer_can_take_over())
            ended = pair.tasks.pop(active)
            leaving = pair.instances.pop(active)
            leaving.feed.close("the test cuts it")
            while not ended.done():
                await pair.exchange.send()
                await asyncio.sleep(0.002)
            async with asyncio.timeout(10):
                with pytest.raises(ExceptionGroup) as failure:
                    await ended
            assert failure.group_contains(SteppedDown)
            assert leaving.relay is not None and leaving.relay.intake.losses == 0
            await pair.exchange.send(5)
            assert await pair.active() == standby
            pair.start(active)
            assert await pair.ready() == active
            await pair.settled()
            assert_whole(await pair.stored(), pair.exchange.sent)
            assert pair.losses == []

    asyncio.run(play())


def test_an_active_instance_stays_where_the_other_one_lost_its_socket_too(tmp_path: Path) -> None:
    async def play() -> None:
        async with a_pair(tmp_path) as pair:
            active, standby = await pair.started()
            await pair.until(lambda: pair.instances[active]._peer_can_take_over())
            await pair.exchange.send(5)
            sockets = tuple(pair.exchange.sockets)
            for instance in pair.instances.values():
                instance.feed.close("the test cuts it")
            await pair.until(lambda: not set(sockets) & set(pair.exchange.sockets))
            await pair.exchange.send(7)
            missed = pair.exchange.sent
            await pair.until(
                lambda: pair.instances[active].feed.connected and pair.instances[standby].feed.connected
            )
            await pair.exchange.send(5)
            await pair.settled()
            assert await pair.active() == active and pair.instances[active].takeovers == 0
            numbers = {number_of(one.payload) for one in await pair.stored()}
            (loss,) = pair.losses
            assert (loss.last_id, set(loss.ids) & numbers) == (missed, set())
            assert numbers | set(loss.ids) == set(range(min(numbers), pair.exchange.sent + 1))

    asyncio.run(play())


def test_an_instance_that_hears_of_a_later_active_one_ends(tmp_path: Path) -> None:
    """Both believe for a moment; the fence keeps the earlier one from storing, and its own ear ends it."""

    async def play() -> None:
        async with a_pair(tmp_path) as pair:
            active, standby = await pair.started()
            hasty = pair.instances[standby].election
            hasty.must_take_over = lambda own, now, *, covers: True  # type: ignore[method-assign]
            await pair.exchange.send(5)
            ended = pair.tasks.pop(active)
            async with asyncio.timeout(10):
                with pytest.raises(ExceptionGroup) as failure:
                    await ended
            assert failure.group_contains(FencedError)
            del pair.instances[active]
            await pair.exchange.send(5)
            await pair.settled()
            assert_whole(await pair.stored(), pair.exchange.sent)

    asyncio.run(play())


def test_a_drained_active_instance_leaves_to_the_standby(tmp_path: Path) -> None:
    async def play() -> None:
        async with a_pair(tmp_path) as pair:
            active, standby = await pair.started()
            drained = await pair.instances[active].drain(5.0)
            assert (drained.state, drained.backlog_count) == (StreamState.STOPPED, 0)
            await pair.exchange.send(5)
            await pair.until(lambda: pair.instances[standby].relay is not None)
            await pair.settled(standby)
            assert_whole(await pair.stored(), pair.exchange.sent)

    asyncio.run(play())


def test_a_drained_standby_instance_never_takes_over(tmp_path: Path) -> None:
    async def play() -> None:
        async with a_pair(tmp_path) as pair:
            active, standby = await pair.started()
            drained = await pair.instances[standby].drain(5.0)
            assert (drained.leg, drained.state) == (LegState.WARM, StreamState.STOPPED)
            await pair.kill(active)
            await asyncio.sleep(1.0)
            assert pair.instances[standby].relay is None
            assert len(pair.exchange.sockets) == 0

    asyncio.run(play())


def test_core_delivery_goes_on_after_what_the_dead_instance_saw_acknowledged(tmp_path: Path) -> None:
    """Best effort: nothing is left out, and what was on its way at the death comes again."""

    async def play() -> None:
        async with a_pair(tmp_path, BOOKS, delivery="core") as pair:
            heard: list[int] = []
            client = await nats.connect(pair.config.nats.servers[0], allow_reconnect=False)

            async def take(message: Any) -> None:
                heard.append(int(orjson.loads(message.data)["data"]["u"]))

            await client.subscribe(pair.settings.subject, cb=take)
            await client.flush()
            active, standby = await pair.started()
            await pair.exchange.send(20)
            await pair.settled()
            await pair.kill(active)
            await pair.exchange.send(20)
            assert await pair.active() == standby
            await pair.exchange.send(20)
            await pair.until(lambda: heard and heard[-1] == pair.exchange.sent)
            assert sorted(set(heard)) == list(range(heard[0], pair.exchange.sent + 1))
            assert len(heard) - len(set(heard)) <= 5
            await client.close()

    asyncio.run(play())
