"""A publisher between the instances of a critical stream: it forwards statuses and keeps their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from actors.publisher.peer_relay import MAX_INSTANCES
from relay.adapters.local.nats_server import EmbeddedNats
from relay.delivery import link_codec
from relay.model.record_batch import RecordBatch, RecordKind
from relay.standby.peer_status import (
    STATUS_INTERVAL_S,
    PeerStatus,
    encode_status,
    read_instance_id,
    read_status,
)
from tests.support.hosts import SECRET
from tests.support.link_client import DEADLINE_S, Sender, events
from tests.support.publisher_rig import OTHER, TRADE, Rig


class InstanceClient(asyncio.Protocol):
    """An instance's end of a connection: it joins by itself and keeps what it receives."""

    def __init__(self, instance_id: int, key: str = TRADE, secret: bytes = SECRET) -> None:
        self.instance_id = instance_id
        self.statuses: list[PeerStatus] = []
        self.parted: list[int] = []
        self.alive = 0
        self.closed = False
        self._key = key
        self._secret = secret
        self._splitter = link_codec.MessageDecoder(link_codec.MAX_MESSAGE_BYTES)
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._changed.set()

    def data_received(self, data: bytes) -> None:
        for kind, body in self._splitter.feed(data):
            match kind:
                case link_codec.CHALLENGE:
                    hello = link_codec.Hello(stream=self._key, epoch=self.instance_id, tip="")
                    self.write(link_codec.join(hello, self._secret, body))
                case link_codec.PEER_STATUS:
                    self.statuses.append(read_status(body))
                case link_codec.PEER_LEFT:
                    self.parted.append(read_instance_id(body))
                case link_codec.ALIVE:
                    self.alive += 1
        self._changed.set()

    def write(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]

    def send(self, status: PeerStatus) -> None:
        self.write(link_codec.frame(link_codec.STATUS, encode_status(status)))

    def announce_active(self, epoch: int) -> PeerStatus:
        status = PeerStatus(self.instance_id, active=True, epoch=epoch)
        self.send(status)
        return status

    async def until(self, met: Callable[[InstanceClient], Any]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not met(self):
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
def nats_server(tmp_path: Path) -> Any:
    with EmbeddedNats(tmp_path / "nats") as server:
        yield server


def play(server: EmbeddedNats, act: Callable[[Rig], Coroutine[Any, Any, None]], nats_lines: str = "") -> None:
    async def run() -> None:
        async with Rig(server, nats_lines) as rig:
            await act(rig)

    asyncio.run(run())


async def joined(rig: Rig, instance_id: int, key: str = TRADE, secret: bytes = SECRET) -> InstanceClient:
    client = InstanceClient(instance_id, key, secret)
    path = rig.stats().unix_path
    await asyncio.get_running_loop().create_unix_connection(lambda: client, path)
    await client.until(lambda one: one.alive or one.closed)
    return client


def test_instances_of_a_stream_receive_each_others_statuses_and_no_others(nats_server: EmbeddedNats) -> None:
    async def act(rig: Rig) -> None:
        first, second, unrelated = (
            await joined(rig, 1), await joined(rig, 2), await joined(rig, 3, OTHER),
        )  # fmt: skip
        status = first.announce_active(5)
        await second.until(lambda one: one.statuses)
        alive = unrelated.alive
        await unrelated.until(lambda one: one.alive > alive + 1)
        assert (first.statuses, second.statuses, unrelated.statuses) == ([], [status], [])

    play(nats_server, act)


def test_who_joins_later_receives_at_once_the_last_status(nats_server: EmbeddedNats) -> None:
    async def act(rig: Rig) -> None:
        first = await joined(rig, 1)
        first.announce_active(5)
        status = first.announce_active(6)
        await first.until(lambda one: one.alive > 2)
        second = await joined(rig, 2)
        assert second.statuses == [status]

    play(nats_server, act)


def test_the_end_of_a_connection_is_forwarded_at_once(nats_server: EmbeddedNats) -> None:
    async def act(rig: Rig) -> None:
        first, second = await joined(rig, 1), await joined(rig, 2)
        first.transport.abort()  # type: ignore[attr-defined]
        await second.until(lambda one: one.parted)
        assert second.parted == [1]

    play(nats_server, act)


def test_it_sends_that_it_is_alive_as_often_as_instances_send_statuses(nats_server: EmbeddedNats) -> None:
    async def act(rig: Rig) -> None:
        first = await joined(rig, 1)
        began, before = asyncio.get_running_loop().time(), first.alive
        await first.until(lambda one: one.alive >= before + 8)
        assert asyncio.get_running_loop().time() - began >= 7 * STATUS_INTERVAL_S

    play(nats_server, act)


@pytest.mark.parametrize("delivery", ["jetstream", "core"])
def test_a_later_active_instance_ends_the_link_of_an_earlier_one_here_and_keeps_it_out(
    nats_server: EmbeddedNats, delivery: str
) -> None:
    """Also where no fence in NATS would."""

    async def act(rig: Rig) -> None:
        stale = await rig.opened(epoch=7)
        instance = await joined(rig, 1)
        instance.announce_active(7)
        await Sender(stale, events(7, 3)).run()
        instance.announce_active(8)
        await stale.until_closed()
        again = await rig.link(epoch=7)
        await again.until_closed()
        assert (stale.heard.fenced_by, again.heard.fenced_by, again.heard.resumes) == (8, 8, [])
        await rig.opened(epoch=8)

    play(nats_server, act, f"delivery: {delivery}")


def test_a_standby_disturbs_nobody(nats_server: EmbeddedNats) -> None:
    async def act(rig: Rig) -> None:
        active = await rig.opened(epoch=7)
        instance = await joined(rig, 1)
        instance.send(PeerStatus(1, active=False, epoch=99))
        await Sender(active, events(7, 20)).run()
        assert rig.stats().streams == (TRADE,)

    play(nats_server, act)


@pytest.mark.parametrize(
    "junk",
    [
        link_codec.frame(link_codec.STATUS, b"short"),
        link_codec.frame(link_codec.STATUS, encode_status(PeerStatus(2, active=True, epoch=1))),
        link_codec.batches(1, 0, RecordBatch(RecordKind.EVENT, 1, 7, 1, 1, [1], [b"{}"]).encoded),
        link_codec.frame(99),
        link_codec.frame(link_codec.STATUS, b"x" * (link_codec.MAX_HELLO_BYTES + 1)),
    ],
    ids=["no status", "another instance's", "events", "unknown", "too long"],
)
def test_an_instance_that_sends_anything_else_loses_its_connection_alone(
    nats_server: EmbeddedNats, junk: bytes
) -> None:
    async def act(rig: Rig) -> None:
        bad, good = await joined(rig, 1), await joined(rig, 2)
        stream = await rig.opened(epoch=7)
        bad.write(junk)
        await bad.until(lambda one: one.closed)
        assert not good.closed and good.statuses == []
        await Sender(stream, events(7, 3)).run()

    play(nats_server, act)


def test_a_stream_that_sends_a_status_without_having_joined_loses_its_link(nats_server: EmbeddedNats) -> None:
    async def act(rig: Rig) -> None:
        stream = await rig.opened(epoch=7)
        stream.write(link_codec.frame(link_codec.STATUS, encode_status(PeerStatus(7, active=True, epoch=8))))
        await stream.until_closed()

    play(nats_server, act)


def test_a_peer_without_the_secret_receives_nothing(nats_server: EmbeddedNats) -> None:
    async def act(rig: Rig) -> None:
        instance = await joined(rig, 1)
        instance.announce_active(5)
        rejected = await joined(rig, 2, secret=b"another")
        assert rejected.closed and rejected.statuses == []
        assert rig.stats().errors == 1

    play(nats_server, act)


def test_there_are_only_so_many_instances(nats_server: EmbeddedNats) -> None:
    async def act(rig: Rig) -> None:
        for instance_id in range(1, MAX_INSTANCES + 1):
            assert not (await joined(rig, instance_id)).closed
        assert (await joined(rig, 99)).closed

    play(nats_server, act)


def test_instances_do_not_hold_up_a_drain(nats_server: EmbeddedNats) -> None:
    async def act(rig: Rig) -> None:
        instance = await joined(rig, 1)
        began = time.monotonic()
        await asyncio.to_thread(rig.publisher.drain, 5.0)
        assert time.monotonic() - began < 1.0
        await instance.until(lambda one: one.closed)

    play(nats_server, act)
