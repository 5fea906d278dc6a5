"""Each guard is switched off once, and the invariant that it stands for must break: else its row is blind."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import relay.control.reconcile
from relay.model.actors import ActorId
from tests.chaos.processes import Seams
from tests.chaos.rig import FLOOD, RATE_PER_S, STREAMS, Rig, publisher, stream
from tests.chaos.rows import Row
from tests.chaos.schedule import KINDS, Planned
from tests.chaos.soak import Soak
from tests.chaos.test_nats_rows import outlast_the_dedup_window
from tests.chaos.test_socket_rows import STORM_ATTEMPTS, silence_one, storm, vanish_behind
from tests.support.oracle import Findings
from tests.support.polling import until

KEY = f"usdm:{FLOOD}"
# A busy stream that is silent is to be left within this.
IN_TIME_S = 6.0
BOOKS = "ethusdt@bookTicker"
PUBLISHERS = [publisher("p0"), publisher("p1")]
EVERY_STREAM = [stream(name) for name in STREAMS]


def without(rig: Rig, guard: str, actors: list[ActorId]) -> None:
    for actor in actors:
        rig.cluster.seams[actor] = Seams(without=(guard,))


def kill_in_an_outage(rig: Rig, row: Row, **config: object) -> None:
    """A stream actor dies while NATS is away and much is unacknowledged."""
    rig.start(config=config)
    rig.flows(100)
    rig.nats.kill()
    until(lambda: rig.stats()[KEY].backlog_count > 200, "a backlog")
    row.injected("the stream actor killed", rig.kill(stream(FLOOD)))
    rig.nats.start()
    rig.flows(200)


def kill_publishers(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(100)
    rig.exchange.flood(FLOOD, 20 * RATE_PER_S)
    for name in ("p0", "p1", "p0"):
        until(lambda name=name: rig.served_by(name), f"{name} serves", 40.0)
        row.injected(f"{name} killed", rig.kill(publisher(name)))
        rig.flows(300)
    rig.exchange.calm(FLOOD)
    rig.flows(100)


def wake_a_zombie(rig: Rig, row: Row) -> None:
    """A stopped actor wakes up after its successor has begun, as after a death reported by mistake."""
    rig.start(rates={BOOKS: 300.0})
    rig.flows(100)
    key, actor = f"usdm:{BOOKS}", stream(BOOKS)
    zombie = rig.stop(actor)
    time.sleep(1.0)
    rig.cluster.abandon(actor)
    rig.flows(100, [key])
    rig.wake(zombie)
    row.injected("the zombie woke up beside its successor", zombie.exitcode is None)
    time.sleep(4.0)
    rig.flows(300)
    zombie.end()
    rig.flows(100)


def cut_the_socket(rig: Rig, row: Row) -> None:
    rig.start(config={"exchange": {"heal": False}})
    rig.flows(100)
    for _ in range(3):
        row.injected("sockets cut", rig.exchange.act("close", code=1006)["sockets"])
        rig.flows(100)


@pytest.mark.chaos(
    row=1, ci=True, fault="a stream actor killed while NATS is down", figure="all accepted is stored"
)
def test_row_1c_killed_in_an_outage(rig: Rig, row: Row) -> None:
    kill_in_an_outage(rig, row)
    rig.judge()


@pytest.mark.chaos(row=1, ci=True, fault="the same without the journal", figure="I1 must break")
def test_guard_journal(rig: Rig, row: Row) -> None:
    kill_in_an_outage(rig, row, journal={"enabled": False}, queue={"overflow": "block"})
    assert_broken(rig.findings, "I1")


@pytest.mark.chaos(row=3, fault="a zombie wakes beside its successor", figure="stores nothing any more")
def test_row_3b_zombie(rig: Rig, row: Row) -> None:
    wake_a_zombie(rig, row)
    rig.judge()


@pytest.mark.chaos(row=3, fault="the same without the fence", figure="I3 or I5 must break")
def test_guard_fence(rig: Rig, row: Row) -> None:
    """What the zombie stores comes before its successor's, or in the place of what that says is lost."""
    without(rig, "fence", PUBLISHERS)
    wake_a_zombie(rig, row)
    assert_broken(rig.findings, "I3", "I5")


@pytest.mark.chaos(row=4, fault="publishers killed, nothing is sent again", figure="I5 must break")
def test_guard_resend(rig: Rig, row: Row) -> None:
    without(rig, "resend", EVERY_STREAM)
    kill_publishers(rig, row)
    assert_broken(rig.findings, "I5")


@pytest.mark.chaos(row=16, ci=True, fault="beyond the dedup window without the chain", figure="I2 must break")
def test_guard_chain(rig: Rig, row: Row) -> None:
    without(rig, "chain", PUBLISHERS)
    outlast_the_dedup_window(rig, row)
    assert_broken(rig.findings, "I2")


@pytest.mark.chaos(row=21, ci=True, fault="sockets cut three times", figure="every gap is in the ledger")
def test_row_21b_sockets_cut(rig: Rig, row: Row) -> None:
    cut_the_socket(rig, row)
    rig.judge()


@pytest.mark.chaos(row=21, ci=True, fault="the same without the gap check", figure="I5 must break")
def test_guard_gap_check(rig: Rig, row: Row) -> None:
    without(rig, "gap check", EVERY_STREAM)
    cut_the_socket(rig, row)
    assert_broken(rig.findings, "I5")


@pytest.mark.chaos(row=22, fault="two sockets vanish, silence is no cause", figure="I5 must break")
def test_guard_silence_half_open(rig: Rig, row: Row) -> None:
    without(rig, "silence", EVERY_STREAM)
    vanish_behind(rig, row, (FLOOD, BOOKS))
    # The ping after 20 s and its limit of 10 s would find out as well, too late for the figure.
    time.sleep(IN_TIME_S)
    assert_broken(rig.findings, "I5")


@pytest.mark.chaos(row=23, fault="one stream silent, silence is no cause", figure="I5 must break")
def test_guard_silence_one_stream(rig: Rig, row: Row) -> None:
    without(rig, "silence", EVERY_STREAM)
    silence_one(rig, row)
    time.sleep(IN_TIME_S)
    assert_broken(rig.findings, "I5")


@pytest.mark.chaos(row=3, fault="a stopped actor that nobody misses", figure="it is not replaced")
def test_guard_mute_limit(rig: Rig, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay.control.reconcile, "UNRESPONSIVE_LIMIT_S", float("inf"))
    rig.start()
    rig.flows(100)
    stopped = rig.stop(stream(FLOOD))
    time.sleep(10.0)
    row.injected("it stands still and is all there is", rig.process(stream(FLOOD)) is stopped)
    assert KEY not in rig.stats(within_s=1.0), "the row's limit is missed"
    rig.wake(stopped)
    rig.flows(100)
    rig.judge()


@pytest.mark.chaos(row=30, fault="a storm without the connect budget", figure="too many attempts")
def test_guard_connect_budget(rig: Rig, row: Row) -> None:
    assert storm(rig, row, without=("connect budget",)) > STORM_ATTEMPTS
    # What is missing nobody can know yet: no stream is back.
    rig.findings()


@pytest.mark.chaos(
    row=43, fault="a schedule without the gap check", figure="I5 must break, the fault is named"
)
def test_guard_gap_check_in_the_soak(rig: Rig, row: Row) -> None:
    without(rig, "gap check", EVERY_STREAM)
    kind = next(kind for kind in KINDS if kind.name == "sockets reset")
    soak = Soak(rig, tuple(Planned(at_s, 0.0, kind, "", row.seed) for at_s in (1.0, 4.0)))
    soak.start()
    soak.play()
    row.injected("sockets reset", len(soak.played) == 2)
    soak.calm_down(60.0)
    found = soak.findings().of("I5")
    assert any("under way: at" in text and "sockets reset" in text for text in found), found


def assert_broken(findings: Callable[[], Findings], *invariants: str) -> None:
    """At least one of them."""
    found = findings()
    named = " and ".join(invariants)
    assert any(map(found.of, invariants)), f"{named} hold without their guard: {found.violations}"
