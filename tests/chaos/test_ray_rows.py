"""Rows of the fault table in which Ray, or a driver, dies or is asked to end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.adapters.local.process_tree import name_of
from tests.chaos.on_ray import FEW, Head, RelayOnRay, ended, head
from tests.chaos.rows import Row
from tests.support.polling import until

NANOSECONDS = 1e9
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def relay(tmp_path: Path, row: Row) -> Iterator[RelayOnRay]:
    with RelayOnRay(tmp_path, row) as made:
        yield made


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Head]:
    with head(cpus=2) as made:
        yield made


@pytest.mark.chaos(
    row=7,
    fault="gcs_server killed, nothing kept of it (Ray's limit 60 s, 10 s in short)",
    figure="data flows for 50 s; exit code not 0; all accepted is stored after a restart",
)
def test_row_7_head_killed(relay: RelayOnRay, row: Row) -> None:
    relay.prepare()
    limit = {} if row.long else {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}
    run = relay.run(**limit)
    relay.flows(50)
    processes, pids = relay.processes(run), relay.pids().values()
    (gcs,) = [one for one in processes if name_of(one) == "gcs_server"]
    os.kill(gcs.pid, signal.SIGKILL)
    began = time.monotonic()
    row.injected("gcs_server killed", until(lambda: ended([gcs]), "its end"))
    run.read_until("the controller has not seen the relay for")
    row.measured("reported after", time.monotonic() - began, "s")
    last = last_growth(relay, run)
    assert run.end() == 1
    row.measured("data flowed for", last - began, "s")
    until(lambda: ended([one for one in processes if one.pid in pids]), "the end of the actors", 20.0)
    relay.note_all_accepted()
    again = relay.run()
    assert ended(processes), "a later start removes what is left"
    relay.flows(50)
    relay.judge(relay.own_logs())
    again.process.terminate()
    assert again.end() == 0
    assert again.left == set()


def last_growth(relay: RelayOnRay, run: object) -> float:
    """When JetStream last had more than before; returns once the driver has ended."""
    last, stored = time.monotonic(), relay.stored()
    while run.process.poll() is None:  # type: ignore[attr-defined]
        now = relay.stored()
        if now != stored:
            last, stored = time.monotonic(), now
        time.sleep(0.2)
    return last


@pytest.mark.chaos(
    row=8, fault="the raylet below all streams killed", figure="as a kill of each; no orphan after 10 s"
)
def test_row_8_raylet_killed(relay: RelayOnRay, row: Row) -> None:
    relay.prepare(config={"resources": {"stream_nodes": "streams", "publisher_nodes": "publishers"}})
    labelled = ("--num-cpus=1", "--labels=sluice=streams")
    with head(1, "--labels=sluice=publishers") as site, site.more("first", *labelled) as first:
        run = relay.run(site)
        relay.flows(50)
        before = relay.pids()
        (raylet,) = [one for one in relay.below(first) if name_of(one) == "raylet"]
        orphans = [one for one in relay.below(first) if one.pid in before.values()]
        assert len(orphans) == len(FEW) + 1, "the streams and the controller"
        os.kill(raylet.pid, signal.SIGKILL)
        began = time.monotonic()
        row.injected("the raylet killed", until(lambda: ended([raylet]), "its end"))
        until(lambda: ended(orphans), "no actor outlives its raylet", 30.0)
        row.measured("orphans gone after", time.monotonic() - began, "s", 10.0)
        relay.note_all_accepted()
        with site.more("second", *labelled):
            row.measured("first acknowledgement", relay.flows(1), "s")
            relay.flows(50)
            until(lambda: relay.streams().keys() == relay.specs().keys(), "the controller sees all")
            assert not {one["pid"] for one in relay.streams().values()} & set(before.values())
            assert run.process.poll() is None, run.lines
            relay.judge(site.folder / "ray" / "session_latest" / "logs")
            relay.leave(site)


@pytest.mark.chaos(
    row=9, fault="a driver on a cluster killed", figure="actors go on, a new driver makes no other"
)
def test_row_9_driver_killed(relay: RelayOnRay, row: Row, ray_head: Head) -> None:
    relay.prepare()
    run = relay.run(ray_head)
    relay.flows(50)
    before = relay.pids()
    run.process.kill()
    row.injected("the driver killed", run.process.wait() == -signal.SIGKILL)
    relay.flows(50)
    again = relay.driver("run", on=ray_head)
    again.read_until("nothing changed")
    relay.flows(50)
    assert relay.pids() == before
    row.measured("actors made", len(relay.pids().items() - before.items()), "", 0)
    assert set(relay.listening().values()) == {1}
    relay.judge(ray_head.folder / "ray" / "session_latest" / "logs")
    relay.leave(ray_head)
    assert again.end() == 0, again.lines


@pytest.mark.chaos(
    row=9,
    ci=True,
    fault="a driver with a Ray of its own killed",
    figure="the next start finds all and leaves nothing",
)
def test_row_9b_driver_killed_with_its_ray(relay: RelayOnRay, row: Row) -> None:
    relay.prepare()
    run = relay.run()
    relay.flows(50)
    processes = relay.processes(run)
    run.process.kill()
    row.injected("the driver killed", run.process.wait() == -signal.SIGKILL)
    began = time.monotonic()
    until(lambda: not any(relay.listening().values()), "no stream is connected", 20.0)
    row.measured("the last socket closed after", time.monotonic() - began, "s", 10.0)
    relay.note_all_accepted()
    again = relay.run()
    assert ended(processes), "a later start removes what is left"
    relay.flows(50)
    relay.judge(relay.own_logs())
    again.process.terminate()
    assert again.end() == 0
    assert again.left == set()


@pytest.mark.chaos(row=10, fault="a second driver on the same cluster", figure="adopts; one socket a feed")
def test_row_10_second_driver(relay: RelayOnRay, row: Row, ray_head: Head) -> None:
    relay.prepare()
    first = relay.run(ray_head)
    relay.flows(50)
    before, began = relay.pids(), time.monotonic()
    second = relay.driver("run", on=ray_head)
    second.read_until("nothing changed")
    row.measured("adopted after", time.monotonic() - began, "s", 5.0)
    row.injected("two drivers run", first.process.poll() is None and second.process.poll() is None)
    relay.flows(100)
    assert relay.pids() == before
    assert set(relay.listening().values()) == {1}
    for one in (second, first):
        one.process.terminate()
        assert one.end() == 0, one.lines
        assert "the actors are detached and go on" in one.lines[-1]
        relay.flows(20)
    assert relay.pids() == before
    relay.judge(ray_head.folder / "ray" / "session_latest" / "logs")
    relay.leave(ray_head)


def the_next_start_sends_the_rest(relay: RelayOnRay) -> None:
    again = relay.run()
    relay.flows(50)
    relay.judge(relay.own_logs())
    again.process.terminate()
    assert again.end() == 0


@pytest.mark.chaos(
    row=41,
    fault="SIGTERM to the driver while NATS is away",
    figure="reading stops first; exit 0 within 20 s; the next start sends the rest",
)
def test_row_41_drain(relay: RelayOnRay, row: Row) -> None:
    relay.prepare()
    run = relay.run()
    relay.flows(50)
    relay.nats.kill()
    until(lambda: all(one["backlog"] > 50 for one in relay.streams().values()), "a backlog")
    began = time.monotonic()
    run.process.terminate()
    until(lambda: not any(relay.listening().values()), "reading stops", 10.0)
    row.measured("reading stopped after", time.monotonic() - began, "s")
    assert run.process.poll() is None
    assert run.end() == 0
    row.measured("exit 0 after", time.monotonic() - began, "s", 20.0)
    left = [line for line in run.lines if "events stay in the journal for the next start" in line]
    assert len(left) == len(FEW), run.lines
    row.injected("events were left", left)
    assert run.left == set()
    relay.note_all_accepted()
    relay.nats.start()
    the_next_start_sends_the_rest(relay)


@pytest.mark.chaos(
    row=41,
    fault="SIGTERM to every process at once, as to a pod's",
    figure="exit 0 within 20 s; all accepted is stored",
)
def test_row_41b_everything_told_to_end(relay: RelayOnRay, row: Row) -> None:
    relay.prepare()
    run = relay.run()
    relay.flows(50)
    processes = relay.processes(run)
    began = time.monotonic()
    for one in processes:
        os.kill(one.pid, signal.SIGTERM)
    run.process.terminate()
    row.injected("all got a SIGTERM", len(processes))
    assert run.end() == 0, run.lines
    row.measured("exit 0 after", time.monotonic() - began, "s", 20.0)
    assert ended(processes)
    relay.note_all_accepted()
    the_next_start_sends_the_rest(relay)
