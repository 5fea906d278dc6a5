"""One plain publisher between test clients and a real nats-server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import nats
from nats.aio.msg import Msg

from actors.publisher.actor import PublisherActor, PublisherSettings
from actors.publisher.dispatcher import DispatcherLimits
from relay.adapters.local.nats_server import EmbeddedNats
from relay.config import Config, parse_config
from relay.delivery import link_codec
from relay.model.stats import PublisherStats
from tests.support.hosts import SECRET, PlainHost
from tests.support.jetstream import streams_ensured
from tests.support.link_client import LinkClient

TRADE = "usdm:btcusdt@trade"
OTHER = "usdm:ethusdt@trade"
BOOK = "usdm:btcusdt@depth20@100ms"


@dataclass(frozen=True)
class StoredEvent:
    """One message as JetStream keeps it."""

    sequence: int
    headers: dict[str, str]
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)["data"]


def a_config(server: EmbeddedNats, nats_lines: str = "") -> Config:
    streams = "\n".join(f"  - stream: {key.partition(':')[2]}" for key in (TRADE, OTHER, BOOK))
    text = (
        f'nats:\n  servers: ["{server.url}"]\n  {nats_lines}\n'
        f"journal: {{directory: /nowhere}}\nshards:\n{streams}\n"
    )
    return parse_config(text, {})


class Rig:
    """Streams exist in JetStream before the publisher starts, unless delivery is core."""

    def __init__(self, server: EmbeddedNats, nats_lines: str = "", **flow: Any) -> None:
        self.server = server
        self.config = a_config(server, nats_lines)
        self.host = PlainHost()
        self._flow = DispatcherLimits(**flow)
        self._clients: list[LinkClient] = []

    async def __aenter__(self) -> Self:
        await self.ensure()
        self.publisher = self.start_publisher("p0")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.close()
        await asyncio.to_thread(self.publisher.stop)
        self.host.close()

    async def ensure(self) -> None:
        await streams_ensured(self.config)

    def start_publisher(self, name: str) -> PublisherActor:
        return PublisherActor(
            name, PublisherSettings(nats=self.config.nats, dispatcher=self._flow), self.host
        )

    async def link(
        self, stream: str = TRADE, epoch: int = 7, tip: str = "", publisher: PublisherActor | None = None
    ) -> LinkClient:
        """Connected over the unix socket; see `opened` for one that is ready."""
        path = self.stats(publisher).unix_path
        client = LinkClient(link_codec.Hello(stream=stream, epoch=epoch, tip=tip), SECRET)
        self._clients.append(client)
        await asyncio.get_running_loop().create_unix_connection(lambda: client, path)
        return client

    async def opened(self, stream: str = TRADE, epoch: int = 7, tip: str = "", **more: Any) -> LinkClient:
        client = await self.link(stream, epoch, tip, **more)
        await client.until(lambda heard: bool(heard.resumes))
        return client

    def stats(self, publisher: PublisherActor | None = None) -> PublisherStats:
        return (publisher or self.publisher).stats()

    def spec(self, stream: str = TRADE) -> Any:
        return next(one.spec for one in self.config.streams if one.spec.key == stream)

    async def stored(self, stream: str = TRADE) -> list[StoredEvent]:
        """All events of one stream that JetStream holds, in its order."""
        one = next(one for one in self.config.streams if one.spec.key == stream)
        return await self.read(one.spec.jetstream_name, one.stored_subject)

    async def read(self, jetstream: str, subject: str) -> list[StoredEvent]:
        client = await nats.connect(self.server.url, allow_reconnect=False)
        try:
            js = client.jetstream(timeout=10)
            info = await js.stream_info(jetstream, subjects_filter=subject)
            count = sum((info.state.subjects or {}).values())
            subscription = await js.subscribe(subject, stream=jetstream, ordered_consumer=True)
            return [_stored(await subscription.next_msg(10)) for _ in range(count)]
        finally:
            await client.close()

    async def api(self, call: str, query: bytes = b"") -> dict[str, Any]:
        client = await nats.connect(self.server.url, allow_reconnect=False)
        try:
            answer = await client.request(f"$JS.API.{call}", query, timeout=5)
            return dict(json.loads(answer.data))
        finally:
            await client.close()

    async def until(self, condition: Any, deadline_s: float = 15.0) -> PublisherStats:
        """Look at the publisher's stats until they meet `condition`."""
        async with asyncio.timeout(deadline_s):
            while not condition(stats := await asyncio.to_thread(self.stats)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return stats


def _stored(message: Msg) -> StoredEvent:
    return StoredEvent(message.metadata.sequence.stream, dict(message.headers or {}), message.data)
