"""Row 2 of the fault table: legs of critical streams die, stop and wake up, without REST and without a loss."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import pytest

from relay.ports import ActorId, Role
from tests.chaos.oracle import Findings
from tests.chaos.rig import FLOOD, RATE_PER_S, Rig, stream, until
from tests.chaos.rows import Row

BOOKS, DEPTH = "ethusdt@bookTicker", "btcusdt@depth@100ms"
CRITICAL = (FLOOD, BOOKS, DEPTH)
OTHER = "ethusdt@trade"
LIMIT_S = 2.0


def start(rig: Rig, critical: Sequence[str] = CRITICAL, **more: object) -> None:
    """Nothing is healed, so that whatever the second leg does not have is missing."""
    shards = [{"stream": name, "critical": name in critical} for name in (*CRITICAL, OTHER)]
    config = {"exchange": {"heal": False}, "shards": shards, **more}
    rig.start((*CRITICAL, OTHER), config=config, rates={BOOKS: 300.0})
    for name in critical:
        rig.warm(name)


def pause_of(rig: Rig, name: str, from_ns: int, to_ns: int) -> float:
    """The longest time in the span in which nothing of a stream was stored."""
    times = [one.stored_ns for one in rig.events(f"usdm:{name}") if from_ns <= one.stored_ns <= to_ns]
    return max((later - earlier) / 1e9 for earlier, later in pairwise([from_ns, *times]))


def nothing_missing(rig: Rig) -> Findings:
    findings = rig.judge()
    assert findings.missing == 0, f"{findings.missing} of {findings.wired} events are missing"
    return findings


@pytest.mark.chaos(
    row=2, ci=True, fault="hot legs killed at random moments of a flood", figure="nothing missing, 2 s"
)
def test_row_2_hot_legs_killed(rig: Rig, row: Row) -> None:
    start(rig)
    rig.flows(100)
    rig.exchange.flood(FLOOD, 10 * RATE_PER_S)
    random, spans = row.random, []
    for _ in range(20 if row.long else 4):
        name = random.choice(CRITICAL)
        rig.warm(name)
        hot = rig.hot(name)
        time.sleep(random.uniform(0.0, 0.6))
        with rig.outage() as outage:
            row.injected(f"{hot} killed", rig.kill(hot))
            rig.flows(100, [f"usdm:{name}"])
        spans.append((name, outage))
    rig.exchange.calm(FLOOD)
    rig.flows(100)
    nothing_missing(rig)
    pauses = [pause_of(rig, name, one.began_ns, one.ended_ns) for name, one in spans]
    row.measured("longest pause", max(pauses), "s", LIMIT_S)
