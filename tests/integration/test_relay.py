"""Stream and publisher actors as plain objects between the simulated exchange and a real nats-server.

The books are balanced from three sides: what the exchange sent, what the actors counted, and what a consumer
reads back from JetStream, whose payloads are compared byte for byte by their digest.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.publisher import PublisherActor, PublisherSettings
from actors.stream import StreamActor
from relay.audit import Audit
from relay.commands.background import BackgroundAudit
from relay.config import Config, Delivery, parse_config
from relay.embedded import EmbeddedNats
from relay.exchange.server import ExchangeServer
from relay.exchange.settings import ExchangeSettings
from relay.jetstream import ensure_streams
from relay.stats import Assignment, PublisherEndpoint, StreamStats
from relay.streams import Venue
from relay.verdict import Sent, judge
from tests.hosts import PlainHost

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
TEN = Path(__file__).parents[2] / "shards.yaml"


class ExchangeThread:
    """The exchange on an event loop of its own."""

    def __init__(self, settings: ExchangeSettings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.server = ExchangeServer(settings)
        self.run(self.server.__aenter__())

    def run(self, coroutine: object, timeout_s: float = 60.0) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def call(self, function: Callable[[], object]) -> object:
        async def run() -> object:
            return function()

        return self.run(run())

    def sent(self, venue: str) -> dict[str, Sent]:
        report = self.call(self.server.sent)
        return {f"{venue}:{name}": Sent(one.events, one.digest) for name, one in report.items()}

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
        """Its loop ends in the middle of whatever it does, and nobody is told."""
        self.publishers.pop(name).stop()

    def stats(self) -> list[StreamStats]:
        return [actor.stats() for actor in self.streams.values()]

    def settled(self) -> bool:
        return all(one.backlog_count == 0 and one.balanced for one in self.stats())

    def close(self) -> None:
        for actor in (*self.streams.values(), *self.publishers.values()):
            actor.stop()
        self.host.close()


def _endpoint(host: PlainHost, publisher: PublisherActor) -> PublisherEndpoint:
    stats = publisher.stats()
    return PublisherEndpoint(
        publisher=stats.publisher,
        node=host.node,
        unix_path=stats.unix_path,
        tcp_address=stats.tcp_address,
    )


def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Poll, since the sides share no event."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        pause.wait(0.01)


def configured(text: str, exchange: ExchangeThread, nats: EmbeddedNats, directory: Path) -> Config:
    environ = {"BINANCE_WS_URL": exchange.server.url, "NATS_URL": nats.url}
    config = parse_config(text, environ)
    return config.model_copy(
        update={"journal": config.journal.model_copy(update={"directory": directory / "journal"})}
    )


def assert_books_balance(relay: Relay, sent: dict[str, Sent], audit: Audit) -> None:
    counted = {f"{one.venue}:{one.stream}": one for one in relay.stats()}
    for key, one in counted.items():
        assert one.balanced, key
        assert one.received == sent[key].events, key
        assert (one.dropped, one.rejected, one.repeated, one.lost) == (0, 0, 0, 0), key
    verdicts = judge(sent, audit.report(), {key: one.conflated for key, one in counted.items()})
    for verdict in verdicts:
        assert verdict.good, verdict
        assert verdict.conflated or verdict.bytes_equal, verdict


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    with EmbeddedNats(tmp_path / "nats") as server:
        yield server


def test_flood_scaling_a_dead_publisher_and_two_nats_restarts_lose_nothing(
    nats: EmbeddedNats, tmp_path: Path
) -> None:
    exchange = ExchangeThread(ExchangeSettings(expected=("*",), streams=_names(TEN)))
    config = configured(TEN.read_text(), exchange, nats, tmp_path)
    asyncio.run(ensure_streams(config.nats, config.streams))
    relay = Relay(config, publishers=2)
    audit = Audit()
    flooded = "btcusdt@trade"

    def sent(count: int) -> Callable[[], bool]:
        return lambda: relay.streams[f"usdm:{flooded}"].stats().received >= count

    with BackgroundAudit(config, audit, from_start=True) as reader:
        exchange.call(lambda: exchange.server.flood(flooded, 8000.0))
        until(sent(5_000))
        relay.kill("p0")
        until(sent(10_000))
        relay.add("p2")
        nats.kill()
        until(sent(20_000))
        nats.start()
        until(sent(25_000))
        nats.restart()
        relay.add("p3")
        until(sent(35_000))
        relay.retire("p1")
        relay.retire("p2")
        exchange.call(lambda: exchange.server.calm(flooded))
        exchange.run(exchange.server.stop_traffic())
        until(relay.settled)
        assert reader.caught_up(30.0)
    try:
        assert_books_balance(relay, exchange.sent("usdm"), audit)
    finally:
        relay.close()
        exchange.close()


@pytest.mark.parametrize(
    ("file", "venue", "names"),
    [
        ("usdm_btcusdt_20240808.gz", "usdm", ("btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@0ms")),
        ("spot_btcusdt_20240808.gz", "spot", ("btcusdt@trade", "btcusdt@bookTicker", "btcusdt@depth@100ms")),
    ],
)
def test_a_recorded_market_at_20x_arrives_whole_and_in_order(
    nats: EmbeddedNats, tmp_path: Path, file: str, venue: str, names: tuple[str, ...]
) -> None:
    recording = SAMPLES / file
    if not recording.exists():
        pytest.skip(f"no recording at {recording}")
    settings = ExchangeSettings(venue=Venue(venue), recording=recording, speed=20.0, expected=("*",))
    exchange = ExchangeThread(settings)
    shards = ", ".join(names)
    text = f"exchange: {{venue: {venue}}}\nqueue: {{max_messages: 50000}}\nshards: [{shards}]\n"
    config = configured(text, exchange, nats, tmp_path)
    asyncio.run(ensure_streams(config.nats, config.streams))
    relay = Relay(config, publishers=1)
    audit = Audit()
    with BackgroundAudit(config, audit, from_start=True) as reader:
        exchange.run(exchange.server.wait_finished(within_s=100.0), 110.0)
        until(relay.settled)
        assert reader.caught_up(30.0)
    try:
        assert_books_balance(relay, exchange.sent(venue), audit)
    finally:
        relay.close()
        exchange.close()


def test_a_subject_without_fields_carries_every_stream_and_each_is_stored_apart(
    nats: EmbeddedNats, tmp_path: Path
) -> None:
    names = ("btcusdt@trade", "ethusdt@trade")
    exchange = ExchangeThread(ExchangeSettings(streams=names, expected=("*",)))
    text = f"nats: {{subject: binance.websocket.data}}\nshards: [{', '.join(names)}]\n"
    config = configured(text, exchange, nats, tmp_path)
    asyncio.run(ensure_streams(config.nats, config.streams))
    stored, seen = Audit(), Audit()
    core = config.model_copy(update={"nats": config.nats.model_copy(update={"delivery": Delivery.CORE})})
    with (
        BackgroundAudit(config, stored, from_start=True) as reader,
        BackgroundAudit(core, seen, from_start=False),
    ):
        relay = Relay(config, publishers=1)
        exchange.run(exchange.server.wait_subscribed(*names))
        for name in names:
            exchange.call(lambda name=name: exchange.server.emit(name, 500))
            exchange.run(exchange.server.wait_sent(name, 500))
        exchange.run(exchange.server.stop_traffic())
        until(relay.settled)
        assert reader.caught_up(30.0)
        sent = exchange.sent("usdm")
        assert all(one.events >= 500 for one in sent.values())
        until(lambda: all(seen.stored(key) == one.events for key, one in sent.items()))
    try:
        assert_books_balance(relay, sent, stored)
        assert all(one.clean and one.digest == sent[one.stream].digest for one in seen.report())
    finally:
        relay.close()
        exchange.close()


def _names(path: Path) -> tuple[str, ...]:
    return tuple(settings.spec.name for settings in parse_config(path.read_text(), {}).streams)
