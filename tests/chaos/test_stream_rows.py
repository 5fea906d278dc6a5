"""Rows of the fault table in which stream actors die or freeze."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from relay.binance.streams import Venue
from relay.journal.open_gaps_file import OpenGapsFile
from relay.model.actors import ActorId, Role
from tests.chaos.rig import FLOOD, RATE_PER_S, Rig, stream
from tests.chaos.rows import Row
from tests.support.polling import until

SECOND_NS = 1_000_000_000
FLOOD_PER_S = 10 * RATE_PER_S
# REST lists trades of any age to everybody on the spot market alone.
SPOT = {"config": {"exchange": {"venue": "spot"}}, "exchange": {"venue": Venue.SPOT}}


@pytest.mark.chaos(
    row=1,
    ci=True,
    fault="a stream actor killed in a flood, 20 times (4 in short), healing on",
    figure="publishing within 5 s, no trade missing in the end",
)
def test_row_1_killed_in_a_flood_healed(rig: Rig, row: Row) -> None:
    rig.start(**SPOT)
    actor = ActorId(Role.STREAM, f"spot:{FLOOD}")
    kill_in_a_flood(rig, row, actor)
    until(
        lambda: not OpenGapsFile(rig.journal_of(actor.key), 0).load(), "REST was asked about every gap", 900.0
    )
    findings = rig.judge()
    row.measured("healed in place", sum(one.from_rest for one in rig.events(actor.key)), "events")
    row.measured("beside the stream", findings.repaired, "events")
    assert findings.missing == findings.repaired, "a trade is neither in its stream nor beside it"


@pytest.mark.chaos(
    row=1,
    fault="the same, healing off",
    figure="publishing within 5 s, each gap in the ledger, 3 s of wire at most",
)
def test_row_1b_killed_in_a_flood_unhealed(rig: Rig, row: Row) -> None:
    rig.start(config={"exchange": {"heal": False}})
    kills = kill_in_a_flood(rig, row, stream(FLOOD))
    findings = rig.judge()
    assert findings.missing, "a dead actor missed nothing"
    assert rig.reading is not None
    darks = [loss for loss in rig.reading.losses if loss.stream == f"usdm:{FLOOD}"]
    row.injected("gaps in the ledger, one for each kill", len(darks) == kills)
    row.measured("longest gap", max(loss.to_ns - loss.from_ns for loss in darks) / SECOND_NS, "s", 3.0)
    row.measured("largest gap", max(loss.count or 0 for loss in darks), "events", 3 * FLOOD_PER_S)


def kill_in_a_flood(rig: Rig, row: Row, actor: ActorId) -> int:
    """At random moments, the next one as soon as the last is over; returns how often."""
    rig.flows(100)
    rig.exchange.flood(FLOOD, FLOOD_PER_S)
    random, slowest_s = row.random, 0.0
    kills = 20 if row.long else 4
    for _ in range(kills):
        time.sleep(random.uniform(0.0, 1.0))
        row.injected("the stream actor killed", rig.kill(actor))
        slowest_s = max(slowest_s, rig.flows(1, [actor.key]))
        rig.flows(random.randrange(1, 500), [actor.key])
    row.measured("publishing again within", slowest_s, "s", 5.0)
    rig.exchange.calm(FLOOD)
    rig.flows(100)
    return kills


@pytest.mark.chaos(
    row=3,
    ci=True,
    fault="a stream actor stopped for 30 s (3 s beyond its replacement in short), out of reach, then woken",
    figure="replaced within 10 s, stores nothing any more",
)
def test_row_3_stopped(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(200)
    actor = stream(FLOOD)
    rig.cluster.beyond_reach.add(actor)
    began = time.monotonic()
    zombie = rig.stop(actor)
    rig.flows(1, [actor.key])
    row.measured("replaced, and the next one publishing, within", time.monotonic() - began, "s", 10.0)
    time.sleep(max(3.0, 30.0 - (time.monotonic() - began)) if row.long else 3.0)
    successor = rig.stats()[actor.key]
    rig.wake(zombie)
    row.injected("it woke up beside its successor", zombie.exitcode is None and zombie.pid != successor.pid)
    woken_ns = time.time_ns()
    until(lambda: zombie.exitcode is not None, "it has learned of its successor and ends", 20.0)
    row.measured("it ended by itself within", (time.time_ns() - woken_ns) / SECOND_NS, "s")
    rig.flows(200)
    assert rig.stats()[actor.key].epoch == successor.epoch
    rig.judge()
    epochs = [one.epoch for one in rig.events(actor.key)]
    assert epochs[-1] == successor.epoch and len(set(epochs)) == 2
    row.measured("stored by it after its successor", sum(a > b for a, b in pairwise(epochs)), "events", 0.0)
