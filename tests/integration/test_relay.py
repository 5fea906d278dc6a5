"""Stream and publisher actors as plain objects between the simulated exchange and a real nats-server.

The counts are balanced from three sides: what the exchange sent, what the actors counted, and what a consumer
reads back from JetStream, whose payloads are compared byte for byte by their digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.background_audit import BackgroundAudit
from relay.adapters.local.nats_server import EmbeddedNats
from relay.audit.audit import Audit
from relay.audit.comparison import Sent, compare
from relay.binance.id_gaps import gap_rule
from relay.binance.streams import Venue
from relay.config import parse_config
from relay.model.choices import Delivery
from simulator.settings import ExchangeSettings
from tests.support.jetstream import streams_ensured
from tests.support.paths import ROOT, SAMPLES
from tests.support.polling import until
from tests.support.relay_rig import ExchangeThread, Relay, configured

TEN = ROOT / "shards.yaml"


def assert_counts_balance(relay: Relay, sent: dict[str, Sent], audit: Audit) -> None:
    counted = {one.key: one for one in relay.stats()}
    for key, one in counted.items():
        assert one.balanced, key
        assert one.received == sent[key].events, key
        assert (one.dropped, one.rejected, one.repeated, one.lost) == (0, 0, 0, 0), key
    outcomes = compare(sent, audit.report(), {key: one.conflated for key, one in counted.items()})
    for outcome in outcomes:
        assert outcome.passed, outcome
        assert outcome.conflated or outcome.bytes_equal, outcome


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[EmbeddedNats]:
    with EmbeddedNats(tmp_path / "nats") as server:
        yield server


def test_flood_scaling_a_dead_publisher_and_two_nats_restarts_lose_nothing(
    nats: EmbeddedNats, tmp_path: Path
) -> None:
    exchange = ExchangeThread(ExchangeSettings(expected=("*",), streams=_names(TEN)))
    config = configured(TEN.read_text(), exchange, nats, tmp_path)
    asyncio.run(streams_ensured(config))
    relay = Relay(config, publishers=2)
    audit = Audit(gap_rule)
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
        assert_counts_balance(relay, exchange.sent("usdm"), audit)
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
    asyncio.run(streams_ensured(config))
    relay = Relay(config, publishers=1)
    audit = Audit(gap_rule)
    with BackgroundAudit(config, audit, from_start=True) as reader:
        exchange.run(exchange.server.wait_finished(within_s=100.0), 110.0)
        until(relay.settled)
        assert reader.caught_up(30.0)
    try:
        assert_counts_balance(relay, exchange.sent(venue), audit)
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
    asyncio.run(streams_ensured(config))
    stored, seen = Audit(gap_rule), Audit(gap_rule)
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
        assert_counts_balance(relay, sent, stored)
        assert all(one.clean and one.digest == sent[one.stream].digest for one in seen.report())
    finally:
        relay.close()
        exchange.close()


def _names(path: Path) -> tuple[str, ...]:
    return tuple(settings.spec.name for settings in parse_config(path.read_text(), {}).streams)
