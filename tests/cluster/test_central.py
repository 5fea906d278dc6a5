"""Numbered events through everything, on a real local Ray, while its parts are killed and rescaled.

The counts are balanced from three sides: what the exchange sent, what the actors counted, and what a consumer
reads back from JetStream, whose payloads are compared byte for byte by their digest.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.client import RelayClient, StartMode, connect
from cli.background_audit import BackgroundAudit
from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.local.simulator_process import SimulatedExchange
from relay.audit.audit import Audit
from relay.audit.comparison import Sent, compare
from relay.binance.id_gaps import gap_rule
from relay.binance.streams import Venue
from relay.config import Config, parse_config
from relay.errors import ClusterError
from relay.model.stats import PublisherStats, RelayStatus, StreamState, StreamStats
from tests.cluster.side_reader import read_losses
from tests.support.paths import ROOT
from tests.support.polling import until, until_status

TEN = ROOT / "shards.yaml"
FLOODED = "btcusdt@trade"
pytestmark = pytest.mark.timeout(240)


@dataclass
class Rig:
    cluster: RelayClient
    exchange: SimulatedExchange
    nats: EmbeddedNats
    config: Config
    reader: BackgroundAudit

    def status(self) -> RelayStatus | None:
        with contextlib.suppress(ClusterError):
            return self.cluster.status()
        return None

    def until(self, met: Callable[[RelayStatus], bool], what: str, within_s: float = 60.0) -> RelayStatus:
        """Poll: the relay's own view lags by its tick of a second."""
        return until_status(self.cluster.status, met, what, within_s)

    def received(self, count: int) -> None:
        self.until(lambda status: stream(status, FLOODED).received >= count, f"{count} events of the flood")


def stream(status: RelayStatus, name: str) -> StreamStats:
    return next(one for one in status.streams if one.stream == name)


def publisher(status: RelayStatus, name: str) -> PublisherStats:
    return next(one for one in status.publishers if one.publisher == name)


def is_live(status: RelayStatus) -> bool:
    return len(status.streams) == 10 and all(
        one.linked and one.state in (StreamState.LIVE, StreamState.CONNECTING) for one in status.streams
    )


def has_publishers(count: int) -> Callable[[RelayStatus], bool]:
    def met(status: RelayStatus) -> bool:
        serving = {one.publisher for one in status.streams if one.linked}
        return status.scale.actual == len(status.publishers) == len(serving) == count

    return met


def is_settled(status: RelayStatus) -> bool:
    return is_live(status) and all(one.backlog_count == 0 and one.balanced for one in status.streams)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setenv("SLUICE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        EmbeddedNats(tmp_path / "nats") as nats,
        SimulatedExchange(Venue.USDM, tmp_path / "exchange.log", hold=True) as exchange,
    ):
        config = parse_config(TEN.read_text(), {"BINANCE_WS_URL": exchange.url, "NATS_URL": nats.url})
        journal = config.journal.model_copy(update={"directory": tmp_path / "journal"})
        config = config.model_copy(update={"journal": journal})
        cluster = connect(StartMode.LOCAL, needed_cpus=4, include_dashboard=False)
        try:
            with BackgroundAudit(config, Audit(gap_rule), from_start=True) as reader:
                rig = Rig(cluster, exchange, nats, config, reader)
                cluster.bring_up(config)
                rig.until(is_live, "ten streams with a publisher", within_s=90.0)
                until_subscribed(exchange, config)
                yield rig
        finally:
            cluster.take_down(5.0)
            cluster.close()


def until_subscribed(exchange: SimulatedExchange, config: Config) -> None:
    wanted = {settings.spec.name for settings in config.streams}
    until(lambda: exchange.subscribed() == wanted, "every stream has a socket", 30.0, pause_s=0.1)
    exchange.start_traffic()


def sent_by_key(exchange: SimulatedExchange) -> dict[str, Sent]:
    return {f"usdm:{name}": one for name, one in exchange.stop_traffic(20.0).items()}


def test_a_flood_with_everything_killed_and_rescaled_loses_nothing(rig: Rig) -> None:
    rig.exchange.flood(FLOODED, 4000.0)
    rig.received(4_000)
    first = rig.until(has_publishers(len(rig.status().publishers)), "a steady pool").publishers[0]
    os.kill(first.pid, signal.SIGKILL)
    rig.until(
        lambda status: stream(status, FLOODED).acknowledged > 8_000 and is_live(status),
        "the flood goes on without the publisher",
    )
    rig.cluster.scale(4, "the test")
    rig.until(has_publishers(4), "four publishers")
    controller_pid = rig.status().controller_pid
    os.kill(controller_pid, signal.SIGKILL)
    rig.nats.restart()
    rig.until(lambda status: status.controller_pid != controller_pid, "a new controller")
    rig.until(has_publishers(4), "the new controller found the four publishers")
    rig.cluster.scale(1, "the test")
    rig.until(has_publishers(1), "one publisher")
    rig.exchange.calm(FLOODED)
    sent = sent_by_key(rig.exchange)
    status = rig.until(is_settled, "empty backlogs")
    assert rig.reader.caught_up(30.0)
    for one in status.streams:
        key = f"usdm:{one.stream}"
        assert one.received == sent[key].events, key
        assert (one.dropped, one.rejected, one.repeated, one.lost) == (0, 0, 0, 0), key
    conflated = {f"usdm:{one.stream}": one.conflated for one in status.streams}
    for outcome in compare(sent, rig.reader.audit.report(), conflated):
        assert outcome.passed, outcome
        assert outcome.conflated or outcome.bytes_equal, outcome


def test_a_killed_stream_actor_resumes_and_heals_its_own_gap(rig: Rig) -> None:
    """At a rate at which the newest thousand trades, which need no key, reach back to before the kill."""
    rig.exchange.flood(FLOODED, 100.0)
    rig.received(200)
    before = stream(rig.status(), FLOODED)
    rig.nats.kill()
    rig.until(lambda status: stream(status, FLOODED).backlog_count > 200, "a backlog")
    os.kill(before.pid, signal.SIGKILL)
    rig.until(lambda status: stream(status, FLOODED).epoch > before.epoch, "a new incarnation")
    rig.nats.start()
    rig.until(lambda status: stream(status, FLOODED).acknowledged > 200, "the backlog is drained")
    rig.exchange.calm(FLOODED)
    sent = sent_by_key(rig.exchange)
    status = rig.until(is_settled, "empty backlogs")
    assert rig.reader.caught_up(30.0)
    after = stream(status, FLOODED)
    assert after.recovered > 200, "the journal of the dead incarnation was resumed"
    audits = rig.reader.audit.report()
    assert all(one.clean for one in audits)
    (found,) = [one for one in audits if one.stream == f"usdm:{FLOODED}"]
    losses = [loss for loss in read_losses(rig.nats.url) if loss["stream"] == f"usdm:{FLOODED}"]
    assert [(loss["healed"], loss["count"]) for loss in losses] == [(True, after.healed)]
    assert after.healed == found.healed > 0, "the gap of a kill under flood"
    assert (found.missing_ids, after.lost) == (0, 0)
    (outcome,) = [one for one in compare(sent, audits, {}) if one.stream == f"usdm:{FLOODED}"]
    assert outcome.passed and outcome.sent > sent[outcome.stream].events
