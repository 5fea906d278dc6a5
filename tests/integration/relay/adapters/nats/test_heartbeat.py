"""The controller's heartbeat on a real server, with either delivery."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from actors.controller.actor import Controller
from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.nats.heartbeat import SUBJECT, publish
from relay.config import Config, parse_config
from relay.errors import BusError
from tests.support.fakes import FakeCluster
from tests.support.hosts import PlainHost

DEADLINE_S = 20.0


def config(server: EmbeddedNats, delivery: str) -> Config:
    text = f"page: off\nnats: {{servers: ['{server.url}'], delivery: {delivery}}}\nshards: [btcusdt@trade]\n"
    return parse_config(text, {"HOME": "/home/somebody"})


def test_one_that_is_too_long_is_told_in_a_sentence(tmp_path: Path) -> None:
    too_long = pytest.raises(BusError, match="the heartbeat has 2000 bytes; raise max_payload")
    with EmbeddedNats(tmp_path / "small", extra_config="max_payload: 1024") as server, too_long:
        asyncio.run(publish(config(server, "core").nats, b"x" * 2000))


@contextmanager
def controlling(wanted: Config) -> Iterator[Controller]:
    host = PlainHost()
    controller = Controller(FakeCluster(), host)
    try:
        controller.apply(wanted)
        yield controller
    finally:
        controller.stop()
        host.close()


@pytest.mark.parametrize("delivery", ["core", "jetstream"])
def test_a_consumer_hears_that_the_relay_lives(nats_server: EmbeddedNats, delivery: str) -> None:
    async def receive() -> Msg:
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        client = await nats.connect(nats_server.url)
        try:
            await client.subscribe(SUBJECT, cb=heard.put)
            await client.flush()
            with controlling(config(nats_server, delivery)):
                async with asyncio.timeout(DEADLINE_S):
                    return await heard.get()
        finally:
            await client.close()

    message = asyncio.run(receive())
    assert message.subject == SUBJECT
    heartbeat = json.loads(message.data)
    assert (heartbeat["delivery"], heartbeat["configuration"]) == (delivery, 1)
