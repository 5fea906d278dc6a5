"""Rows of the fault table in which somebody sets the clock of the machine."""

from __future__ import annotations

import time

import pytest

from tests.chaos.clock import WallClock
from tests.chaos.processes import Seams
from tests.chaos.rig import FLOOD, STREAMS, Rig, publisher, stream
from tests.chaos.rows import Row
from tests.support.polling import until

HOUR_S = 3600.0
KEY = f"usdm:{FLOOD}"
# REST lists these by their ids however old they are.
HEALED = "usdm:btcusdt@aggTrade"


def on_a_clock(rig: Rig) -> WallClock:
    """One for the whole machine: the exchange's own and that of each actor."""
    clock = WallClock(rig.directory / "clock")
    for actor in (*map(stream, STREAMS), publisher("p0"), publisher("p1")):
        rig.cluster.seams[actor] = Seams(clock=clock.path)
    return clock


def undisturbed(rig: Rig) -> dict[str, tuple[object, ...]]:
    """What a mere change of the clock must not move."""
    return {
        key: (one.epoch, one.pid, one.reconnects, one.failovers, one.lost, one.assignment_version)
        for key, one in rig.stats().items()
    }


def clock_of(rig: Rig, key: str) -> float:
    """How far ahead of the true one the clock is that a stream saw at its last start."""
    return rig.stats()[key].subscribed_at_ns / 1e9 - time.time()


def _from_rest(rig: Rig) -> int:
    """A stream that was back at once after the first cut has missed nothing while REST refused."""
    one = rig.stats()[HEALED]
    return one.repaired + one.healed


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S], ids=["ahead", "back"])
@pytest.mark.chaos(
    row=34, fault="the clock set by an hour, and back in an outage", figure="moves and loses nothing"
)
def test_row_34_clock_set(rig: Rig, row: Row, by_s: float) -> None:
    clock = on_a_clock(rig)
    rig.start(exchange={"clock": clock.path})
    rig.flows(100)
    before = undisturbed(rig)
    clock.step(by_s)
    rig.flows(200)
    assert undisturbed(rig) == before

    rig.kill(stream("ethusdt@trade"))
    rig.flows(50)
    row.injected("the clock was set", abs(clock_of(rig, "usdm:ethusdt@trade") - by_s) < 60.0)
    rig.exchange.act("refuse-rest", how=429, retry_after_s=4)
    rig.exchange.act("close", code=1006)
    row.measured("first acknowledgement after a cut", rig.flows(1), "s", 5.0)
    rig.nats.kill()
    until(lambda: rig.stats()[KEY].backlog_count > 100, "a backlog")
    rig.exchange.act("close", code=1006)
    clock.step(-by_s)
    rig.exchange.act("accept-rest")
    began = time.monotonic()
    rig.kill(publisher("p0"))
    rig.kill(stream("ethusdt@trade"))
    rig.nats.start()
    rig.flows(200)
    until(lambda: _from_rest(rig), "gaps are filled once REST may be asked again", 20.0)
    row.measured("repaired after", time.monotonic() - began, "s", 15.0)
    rig.judge()


@pytest.mark.chaos(
    row=34,
    fault="the clock set back by an hour, then a stream without a journal is killed",
    figure="it is back within 10 s",
)
def test_row_34b_epoch_of_a_clock_that_was_ahead(rig: Rig, row: Row) -> None:
    clock = on_a_clock(rig)
    clock.step(HOUR_S)
    over = {"journal": {"enabled": False}, "queue": {"overflow": "block"}}
    rig.start(config=over, exchange={"clock": clock.path})
    rig.flows(100)
    rig.exchange.flood(FLOOD, 0.0)
    until(lambda: not rig.stats()[KEY].backlog_count, "all of the stream is stored")
    before = rig.stats()[KEY].epoch
    clock.step(-HOUR_S)
    rig.kill(stream(FLOOD))
    rig.exchange.calm(FLOOD)
    row.measured("back after", rig.flows(1, [KEY]), "s", 10.0)
    row.injected("the clock was set back", abs(clock_of(rig, KEY)) < 60.0)
    assert rig.stats()[KEY].epoch > before
    rig.flows(200)
    rig.judge()
