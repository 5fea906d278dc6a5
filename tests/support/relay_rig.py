"""Stream and publisher actors as plain objects, and the simulated exchange in a thread beside them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from actors.publisher.actor import PublisherActor, PublisherSettings
from actors.stream.actor import StreamActor
from relay.adapters.local.nats_server import EmbeddedNats
from relay.audit.comparison import Sent
from relay.config import Config, parse_config
from relay.model.assignment import Assignment, PublisherEndpoint
from relay.model.stats import StreamStats
from simulator.server import ExchangeServer
from simulator.settings import ExchangeSettings
from tests.support.hosts import PlainHost
from tests.support.polling import until

T = TypeVar("T")


class ExchangeThread:
    """The exchange on an event loop of its own."""

    def __init__(self, settings: ExchangeSettings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = ExchangeServer(settings)
        self.run(self.server.__aenter__())

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float = 60.0) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return self.run(run())

    def sent(self, venue: str) -> dict[str, Sent]:
        report = self.call(self.server.sent)
        return {
            f"{venue}:{name}": Sent(one.events, one.digest, one.unseen_ranges) for name, one in report.items()
        }

    def close(self) -> None:
        self.run(self.server.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class Relay:
    """The actors of one configuration, without Ray and without a controller."""

    def __init__(self, config: Config, publishers: int) -> None:
        self.config = config
        self.host = PlainHost()
        self.publishers = {f"p{n}": self._publisher(f"p{n}") for n in range(publishers)}
        self.streams: dict[str, StreamActor] = {}
        self._version = 0
        self._assign()
        for settings in config.streams:
            self.streams[settings.spec.key] = StreamActor(settings, self.host)

    def _publisher(self, name: str) -> PublisherActor:
        return PublisherActor(name, PublisherSettings(nats=self.config.nats), self.host)

    def _assign(self) -> None:
        """Evenly over the publishers that there are."""
        self._version += 1
        names = list(self.publishers)
        endpoints = tuple(_endpoint(self.host, publisher) for publisher in self.publishers.values())
        for place, settings in enumerate(self.config.streams):
            key = settings.spec.key
            chosen = names[place % len(names)]
            assignment = Assignment(version=self._version, publisher=chosen, endpoints=endpoints)
            self.host.assignments[key] = assignment
            if key in self.streams:
                self.streams[key].assign(assignment)

    def add(self, name: str) -> None:
        self.publishers[name] = self._publisher(name)
        self._assign()

    def retire(self, name: str) -> None:
        """As the controller does: its streams leave first."""
        leaver = self.publishers.pop(name)
        self._assign()
        until(lambda: not leaver.stats().streams)
        leaver.stop()

    def kill(self, name: str) -> None:
        """Its loop ends in the middle of whatever it does, and nobody is informed."""
        self.publishers.pop(name).stop()

    def restart(self, key: str) -> None:
        """The next incarnation of a stream whose actor has stopped."""
        settings = next(one for one in self.config.streams if one.spec.key == key)
        self.streams[key] = StreamActor(settings, self.host)

    def stats(self) -> list[StreamStats]:
        return [actor.stats() for actor in self.streams.values()]

    def settled(self) -> bool:
        return all(one.backlog_count == 0 and one.balanced for one in self.stats())

    def close(self) -> None:
        for stream in self.streams.values():
            stream.stop()
        for publisher in self.publishers.values():
            publisher.stop()
        self.host.close()


def _endpoint(host: PlainHost, publisher: PublisherActor) -> PublisherEndpoint:
    stats = publisher.stats()
    return PublisherEndpoint(
        publisher=stats.publisher,
        node=host.node,
        unix_path=stats.unix_path,
        tcp_address=stats.tcp_address,
    )


def configured(text: str, exchange: ExchangeThread, nats: EmbeddedNats, directory: Path) -> Config:
    environ = {"BINANCE_WS_URL": exchange.server.url, "NATS_URL": nats.url}
    config = parse_config(text, environ)
    return config.model_copy(
        update={"journal": config.journal.model_copy(update={"directory": directory / "journal"})}
    )
