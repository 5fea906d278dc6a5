"""Rows of the fault table in which publishers die, freeze, come and go."""

from __future__ import annotations

import time

import pytest

from relay.model.actors import Role
from tests.chaos.rig import FLOOD, RATE_PER_S, Rig, publisher
from tests.chaos.rows import Row
from tests.support.polling import until

KINDS = ("trade", "aggTrade", "bookTicker", "depth@100ms")
EIGHT = tuple(f"{symbol}usdt@{kind}" for symbol in ("btc", "eth") for kind in KINDS)


@pytest.mark.chaos(
    row=4, ci=True, fault="a publisher killed 20 times (4 in short)", figure="its streams wait 2 s at most"
)
def test_row_4_publisher_killed(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(200)
    random, longest_s, spans = row.random, 0.0, []
    for _ in range(20 if row.long else 4):
        until(lambda: len(rig.publishers()) == 2, "both publishers run")
        victim = random.choice(["p0", "p1"])
        until(lambda victim=victim: rig.served_by(victim), f"{victim} serves", 40.0)
        time.sleep(random.uniform(0.0, 0.5))
        hit = rig.served_by(victim)
        with rig.outage() as outage:
            row.injected(f"{victim} killed", rig.kill(publisher(victim)))
            rig.flows(100)
        spans.append((hit, outage))
    rig.judge()
    for hit, outage in spans:
        longest_s = max(longest_s, rig.longest_s(hit, outage.began_ns - 10**9, outage.ended_ns) or 0.0)
    row.measured("longest wait", longest_s, "s", 2.0)


@pytest.mark.chaos(row=5, fault="all publishers killed at once", figure="publishing within 10 s")
def test_row_5_all_publishers_killed(rig: Rig, row: Row) -> None:
    rig.start(publishers=3)
    rig.flows(200)
    row.injected("three killed", all(rig.kill(publisher(name)) for name in ("p0", "p1", "p2")))
    row.measured("first acknowledgement", rig.flows(1), "s", 10.0)
    rig.flows(200)
    rig.judge()


@pytest.mark.chaos(
    row=6,
    ci=True,
    fault="a publisher stopped, woken after its streams left, then stopped for good",
    figure="left within 2 s, late answers ignored",
)
def test_row_6_publisher_stopped(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(200)
    until(lambda: rig.served_by("p0"), "p0 serves", 40.0)
    hit = rig.served_by("p0")
    with rig.outage() as outage:
        process = rig.stop(publisher("p0"))
        until(lambda: not rig.served_by("p0"), "its streams left", 10.0)
        rig.wake(process)
        rig.flows(200)
    row.injected("p0 stopped and woken", process.exitcode is None)
    before = process.pid
    rig.stop(publisher("p0"))
    until(lambda: publisher_pid(rig, "p0") not in (0, before), "it is replaced", 20.0)
    rig.flows(200)
    rig.judge()
    row.measured("longest wait", rig.longest_s(hit, outage.began_ns, outage.ended_ns), "s", 2.5)


def publisher_pid(rig: Rig, name: str) -> int:
    actors = [actor for actor in rig.cluster.actors() if actor == publisher(name)]
    return rig.cluster.process(actors[0]).pid if actors else 0


@pytest.mark.chaos(
    row=37,
    fault="publishers 1 -> 8 -> 1 in a flood, 10 rounds (2 in short)",
    figure="a retired one is gone within 5 s",
)
def test_row_37_scaling(rig: Rig, row: Row) -> None:
    rig.start(EIGHT, publishers=1, rate_per_s=50.0)
    rig.exchange.flood(FLOOD, 15 * RATE_PER_S)
    slowest_s = 0.0
    for _ in range(10 if row.long else 2):
        rig.controller.scale(8, "the test")
        until(lambda: running(rig) == 8, "eight publishers")
        rig.flows(50)
        began = time.monotonic()
        rig.controller.scale(1, "the test")
        until(lambda: running(rig) == 1, "one publisher")
        slowest_s = max(slowest_s, time.monotonic() - began)
        rig.flows(50)
    row.injected("publishers came and went", slowest_s)
    rig.exchange.calm(FLOOD)
    rig.flows(100)
    rig.judge()
    row.measured("seven retired within", slowest_s, "s", 5.0)


def running(rig: Rig) -> int:
    return sum(actor.role is Role.PUBLISHER for actor in rig.cluster.actors())
