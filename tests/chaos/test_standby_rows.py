"""Row 2 of the fault table: instances of critical streams die, stop and continue; no loss, without REST."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest

from tests.chaos.processes import Seams, tcp_ports
from tests.chaos.rig import FLOOD, RATE_PER_S, Rig, publisher, stream, twin
from tests.chaos.rows import Row
from tests.support.oracle import Findings
from tests.support.polling import until

BOOKS, DEPTH = "ethusdt@bookTicker", "btcusdt@depth@100ms"
CRITICAL = (FLOOD, BOOKS, DEPTH)
OTHER = "ethusdt@trade"
LIMIT_S = 2.0
# So many events take ten seconds, after which a stream knows its rhythm.
BUSY = 1_100


def start(
    rig: Rig, critical: Sequence[str] = CRITICAL, publishers: int = 2, proxied: bool = False, **more: Any
) -> None:
    """Nothing is healed, so that whatever the other instance does not have is missing."""
    shards = [{"stream": name, "critical": name in critical} for name in (*critical, OTHER)]
    config = {"exchange": {"heal": False}, "shards": shards, **more}
    rig.start(
        (*critical, OTHER),
        config=config,
        rates={BOOKS: 300.0},
        publishers=publishers,
        proxied_exchange=proxied,
    )
    for name in critical:
        rig.standby(name)


def pause_of(rig: Rig, name: str, from_ns: int, to_ns: int) -> float:
    """The longest time in the span in which nothing of a stream was stored."""
    times = [one.stored_ns for one in rig.events(f"usdm:{name}") if from_ns <= one.stored_ns <= to_ns]
    return max((later - earlier) / 1e9 for earlier, later in pairwise([from_ns, *times]))


def nothing_missing(rig: Rig) -> Findings:
    findings = rig.judge()
    assert findings.missing == 0, f"{findings.missing} of {findings.wired} events are missing"
    return findings


def takeovers(rig: Rig) -> int:
    return sum(one.takeovers for one in rig.stats().values())


def kill_active_instances(rig: Rig, row: Row, times: int) -> list[tuple[str, int, int]]:
    """At random moments of a flood, each once the one before is made good; the spans that they fell in."""
    rig.flows(100)
    rig.exchange.flood(FLOOD, 10 * RATE_PER_S)
    random, spans = row.random, []
    for _ in range(times):
        name = random.choice(CRITICAL)
        rig.standby(name)
        active = rig.active(name)
        time.sleep(random.uniform(0.0, 0.6))
        with rig.outage() as outage:
            row.injected(f"{active} killed", rig.kill(active))
            rig.flows(100, [f"usdm:{name}"])
        spans.append((name, outage.began_ns, outage.ended_ns))
    rig.exchange.calm(FLOOD)
    rig.flows(100)
    return spans


def stop_active_instance(rig: Rig, row: Row, name: str, stopped_s: float) -> None:
    """It wakes up beside its successor, if the controller has not replaced it by then."""
    active = rig.active(name)
    rig.standby(name)
    with rig.outage() as outage:
        process = rig.stop(active)
        until(lambda: rig.active(name) != active, f"the other instance of {name} is active")
        rig.flows(100, [f"usdm:{name}"])
    time.sleep(max(0.0, stopped_s - outage.seconds))
    there = process.exitcode is None
    if there:
        rig.wake(process)
        until(lambda: process.exitcode is not None, "the one that woke up ends")
    row.injected(f"{active} stopped{' and woken' if there else ' and replaced'}", outage.seconds)
    rig.flows(200)
    until(lambda: rig.standby(name) == active, f"{active} is back as the standby")


@pytest.mark.chaos(
    row=2,
    ci=True,
    fault="active instances killed at random moments of a flood",
    figure="nothing missing, 2 s",
)
def test_row_2_active_instances_killed(rig: Rig, row: Row) -> None:
    start(rig)
    spans = kill_active_instances(rig, row, 20 if row.long else 4)
    assert takeovers(rig) == (20 if row.long else 4)
    nothing_missing(rig)
    row.measured("longest pause", max(pause_of(rig, *span) for span in spans), "s", LIMIT_S)


@pytest.mark.chaos(row=2, fault="the same with the instances on two nodes", figure="nothing missing, 2 s")
def test_row_2b_two_nodes(rig: Rig, row: Row) -> None:
    rig.cluster.second_node = True
    start(rig)
    spans = kill_active_instances(rig, row, 20 if row.long else 4)
    nothing_missing(rig)
    row.measured("longest pause", max(pause_of(rig, *span) for span in spans), "s", LIMIT_S)


@pytest.mark.chaos(row=2, fault="the same without journals", figure="nothing missing, 2 s")
def test_row_2c_without_journals(rig: Rig, row: Row) -> None:
    start(rig, journal={"enabled": False}, queue={"overflow": "block"})
    spans = kill_active_instances(rig, row, 4)
    # What an actor has accepted without a journal dies with it, and is stored under another count.
    rig.accepted.clear()
    nothing_missing(rig)
    row.measured("longest pause", max(pause_of(rig, *span) for span in spans), "s", LIMIT_S)


@pytest.mark.chaos(
    row=2,
    fault="an active instance stopped, woken beside its successor, then stopped for good",
    figure="takeover within 2 s, nothing stored of the one that woke up",
)
@pytest.mark.parametrize("nodes", [1, 2])
def test_row_2d_active_instance_stopped(rig: Rig, row: Row, nodes: int) -> None:
    rig.cluster.second_node = nodes == 2
    start(rig)
    rig.flows(100)
    began_ns = time.time_ns()
    stop_active_instance(rig, row, BOOKS, 2.0)
    stop_active_instance(rig, row, FLOOD, 6.0)
    ended_ns = time.time_ns()
    nothing_missing(rig)
    pauses = [pause_of(rig, name, began_ns, ended_ns) for name in (BOOKS, FLOOD)]
    row.measured("longest pause", max(pauses), "s", LIMIT_S)


@pytest.mark.chaos(
    row=2, ci=True, fault="both instances killed at once", figure="what is missing is announced"
)
def test_row_2e_both_instances_killed(rig: Rig, row: Row) -> None:
    start(rig)
    rig.flows(100)
    for name in (FLOOD, BOOKS):
        active, standby = rig.active(name), rig.standby(name)
        row.injected(f"both instances of {name} killed", rig.kill(active) and rig.kill(standby))
    row.measured("first acknowledgement", rig.flows(1, [f"usdm:{FLOOD}", f"usdm:{BOOKS}"]), "s")
    rig.flows(200)
    rig.judge()


@pytest.mark.chaos(
    row=2,
    fault="an active instance killed while NATS is away for longer than the replay buffer reaches",
    figure="nothing missing",
)
@pytest.mark.parametrize("nodes", [1, 2])
def test_row_2f_nats_away(rig: Rig, row: Row, nodes: int) -> None:
    rig.cluster.second_node = nodes == 2
    start(rig, queue={"max_messages": 100})
    rig.flows(100)
    active = {name: rig.active(name) for name in (FLOOD, BOOKS)}
    rig.nats.kill()
    row.injected("NATS killed", not rig.nats.running)
    until(lambda: all(rig.stats()[f"usdm:{name}"].backlog_count > 400 for name in active), "a backlog")
    for name, instance in active.items():
        row.injected(f"the active instance of {name} killed", rig.kill(instance))
        until(
            lambda name=name, instance=instance: rig.active(name) != instance,
            f"the other instance of {name} is active",
        )
    time.sleep(1.0)
    rig.nats.start()
    rig.flows(200)
    nothing_missing(rig)


@pytest.mark.chaos(
    row=2,
    fault="the active instance killed twice in one outage of NATS, on one node",
    figure="nothing missing",
)
def test_row_2g_two_takeovers_in_one_outage(rig: Rig, row: Row) -> None:
    start(rig, (BOOKS,))
    rig.flows(100)
    rig.nats.kill()
    row.injected("NATS killed", not rig.nats.running)
    key = f"usdm:{BOOKS}"
    for _ in range(2):
        until(lambda: rig.stats()[key].backlog_count > 200, "a backlog")
        until(lambda: len(rig.instances(1.0)) == 3, "both instances")
        time.sleep(2.0)
        instance = rig.active(BOOKS)
        row.injected("the active instance killed", rig.kill(instance))
        until(lambda instance=instance: rig.active(BOOKS) != instance, "the other instance is active")
    rig.nats.start()
    rig.flows(200)
    nothing_missing(rig)


@pytest.mark.chaos(row=2, fault="publishers killed and stopped", figure="no standby takes over")
def test_row_2h_publishers_fail(rig: Rig, row: Row) -> None:
    start(rig)
    rig.flows(100)
    row.injected("both publishers killed", all(rig.kill(publisher(name)) for name in ("p0", "p1")))
    rig.flows(200)
    until(lambda: len(rig.publishers()) == 2, "both publishers")
    stopped = rig.stop(publisher("p0"))
    time.sleep(2.5)
    rig.wake(stopped)
    row.injected("p0 stopped and woken", stopped.exitcode is None)
    rig.flows(200)
    until(lambda: all(rig.standby(name) for name in CRITICAL), "standbys")
    assert takeovers(rig) == 0
    nothing_missing(rig)


@pytest.mark.chaos(
    row=2, fault="an active instance killed while the controller is away", figure="nothing missing, 2 s"
)
def test_row_2i_without_a_controller(rig: Rig, row: Row) -> None:
    start(rig)
    rig.flows(100)
    rig.controller.stop()
    active = rig.active(BOOKS)
    with rig.outage() as outage:
        row.injected(f"{active} killed", rig.kill(active))
        rig.flows(200)
    rig.standby(BOOKS)
    nothing_missing(rig)
    row.measured("longest pause", pause_of(rig, BOOKS, outage.began_ns, outage.ended_ns), "s", LIMIT_S)


@pytest.mark.chaos(row=2, fault="a standby killed, stopped and woken", figure="nobody notices")
def test_row_2j_standby_fails(rig: Rig, row: Row) -> None:
    start(rig)
    rig.flows(100)
    row.injected("a standby killed", rig.kill(rig.standby(BOOKS)))
    standby = rig.standby(FLOOD)
    process = rig.stop(standby)
    time.sleep(2.0)
    rig.wake(process)
    row.injected("a standby stopped and woken", process.exitcode is None)
    rig.flows(300)
    assert all(rig.standby(name) for name in CRITICAL)
    assert takeovers(rig) == 0
    nothing_missing(rig)


@pytest.mark.chaos(row=2, ci=True, fault="sockets of active instances reset", figure="nothing missing, 2 s")
def test_row_2k_sockets_reset(rig: Rig, row: Row) -> None:
    start(rig, proxied=True)
    rig.flows(100)
    spans = [lose_socket(rig, row, name, rig.exchange_proxy.reset) for name in CRITICAL]
    assert takeovers(rig) == len(CRITICAL)
    nothing_missing(rig)
    row.measured("longest pause", max(pause_of(rig, *span) for span in spans), "s", LIMIT_S)


@pytest.mark.chaos(
    row=2, fault="sockets of active instances carry nothing any more", figure="nothing missing, 6 s"
)
def test_row_2l_sockets_half_open(rig: Rig, row: Row) -> None:
    start(rig, proxied=True)
    rig.flows(BUSY)
    spans = [lose_socket(rig, row, name, rig.exchange_proxy.swallow) for name in (FLOOD, BOOKS)]
    nothing_missing(rig)
    row.measured("longest pause", max(pause_of(rig, *span) for span in spans), "s", 6.0)


@pytest.mark.chaos(
    row=2, fault="the sockets of both instances reset at once", figure="no takeover; announced"
)
def test_row_2m_both_sockets_reset(rig: Rig, row: Row) -> None:
    start(rig, proxied=True)
    rig.flows(100)
    for name in CRITICAL:
        rig.standby(name)
    rig.flows(50, [f"usdm:{FLOOD}"])
    row.injected("all sockets reset", rig.exchange_proxy.reset() == 2 * len(CRITICAL) + 1)
    rig.flows(200)
    assert takeovers(rig) == 0
    assert rig.judge().missing, "both instances were without a socket and missed nothing"


def lose_socket(rig: Rig, row: Row, name: str, lose: Callable[[set[int]], int]) -> tuple[str, int, int]:
    """Of the active instance alone; returns the span until the standby is active."""
    active, standby = rig.active(name), rig.standby(name)
    # By then the active instance has received the peer status that the standby is ready.
    rig.flows(50, [f"usdm:{FLOOD}"])
    with rig.outage() as outage:
        row.injected(f"the socket of {active} lost", lose(tcp_ports(rig.process(active).pid)) == 1)
        until(lambda: rig.active(name) == standby, f"the other instance of {name} is active")
        rig.flows(100, [f"usdm:{name}"])
    return name, outage.began_ns, outage.ended_ns


@pytest.mark.chaos(row=2, ci=True, fault="the standby has no replay buffer", figure="events must be missing")
def test_guard_memory(rig: Rig, row: Row) -> None:
    assert_missing(rig, row, "memory")


@pytest.mark.chaos(row=2, ci=True, fault="the standby never takes over", figure="events must be missing")
def test_guard_election(rig: Rig, row: Row) -> None:
    assert_missing(rig, row, "election")


def assert_missing(rig: Rig, row: Row, guard: str) -> None:
    """Of the twin alone, so that the stream's actor is active, and comes back after its death."""
    rig.cluster.seams[twin(BOOKS)] = Seams(without=(guard,))
    shards = [{"stream": BOOKS, "critical": True}]
    config = {"exchange": {"heal": False}, "shards": shards}
    rig.start((BOOKS,), config=config, rates={BOOKS: 300.0}, publishers=1)
    until(lambda: len(rig.instances()) == 2, "both instances")
    rig.flows(500)
    row.injected("the active instance killed", rig.kill(stream(BOOKS)))
    rig.flows(300)
    findings = rig.findings()
    assert findings.missing, f"nothing is missing without its guard: {findings}"
