"""Rows of the fault table in which NATS, or the way to it, fails."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from actors.publisher.actor import TICK_S
from actors.publisher.dispatcher import DispatcherLimits
from tests.chaos.island import Island
from tests.chaos.processes import Seams
from tests.chaos.proxy import Bandwidth, Timeout, Way
from tests.chaos.rig import FLOOD, RATE_PER_S, STREAMS, Rig, publisher, stream
from tests.chaos.rows import Row
from tests.chaos.small_disk import enlarge, free_bytes, small_disk
from tests.support.freezing import frozen
from tests.support.polling import until

NANOSECONDS = 1e9
# When a publisher gives an answer up, and how often it checks.
ANSWER_S = DispatcherLimits().stall_s + TICK_S


@pytest.mark.chaos(row=11, ci=True, fault="NATS restarted, then killed", figure="reconnect within 3 s")
def test_row_11_nats_restart(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(200)
    for ended in (rig.nats.stop, rig.nats.kill):
        ended()
        row.injected(f"nats-server ended by {ended.__name__}", not rig.nats.running)
        time.sleep(1.0)
        rig.nats.start()
        row.measured("first acknowledgement", rig.flows(1), "s", 3.0)
        rig.flows(200)
    rig.judge()


@pytest.mark.chaos(
    row=12,
    fault="NATS down for 5 min (12 s in short)",
    figure="memory flat, drained at twice the ingest, live p99 back within 60 s",
)
def test_row_12_nats_down(rig: Rig, row: Row) -> None:
    down_s = 300.0 if row.long else 12.0
    rig.start(config={"queue": {"max_messages": 500}})
    rig.flows(200)
    calm_from_ns = time.time_ns()
    rig.flows(100)
    calm_to_ns = time.time_ns()
    rig.nats.kill()
    row.injected("nats-server killed", not rig.nats.running)
    with rig.outage() as outage:
        until(lambda: rig.problem("without NATS"), "it is reported", 20.0)
        row.measured("reported after", (time.time_ns() - outage.began_ns) / NANOSECONDS, "s", 5.0)
        memory = rig.stream_memory()
        time.sleep(max(0.0, down_s - (time.time_ns() - outage.began_ns) / NANOSECONDS))
        row.measured("memory", 100 * rig.stream_memory() / memory - 100, "% more", 5.0)
        backlog = sum(one.backlog_count for one in rig.stats().values())
        spilled = sum(one.spilled for one in rig.stats().values())
        rig.nats.start()
    row.injected("the outage outgrew memory", spilled)
    began = time.monotonic()
    until(lambda: all(one.backlog_count < 200 for one in rig.stats().values()), "the backlog is gone")
    drained_s = time.monotonic() - began
    rig.flows(500)
    rig.judge()
    row.measured("backlog", backlog, "events")
    row.measured("drain over ingest", backlog / drained_s / (RATE_PER_S * len(STREAMS)), "x")
    keys = rig.specs()
    row.measured("p99 before", rig.p99_ms(keys, calm_from_ns, calm_to_ns), "ms")
    row.measured("p99 after", rig.p99_ms(keys, outage.ended_ns + int(drained_s * NANOSECONDS)), "ms")
    assert outage.seconds >= down_s


@pytest.mark.chaos(
    row=13, fault="NATS stopped for 20 s (6 s in short)", figure="nothing acknowledged meanwhile"
)
def test_row_13_nats_frozen(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(200)
    with frozen(rig.nats.pid):
        # Acknowledgements that were sent before still arrive.
        time.sleep(0.5)
        before = {key: one.acknowledged for key, one in rig.stats().items()}
        time.sleep(20.0 if row.long else 6.0)
        after = {key: one.acknowledged for key, one in rig.stats().items()}
        waiting = sum(one.backlog_count for one in rig.stats().values())
    row.injected("nats-server stopped", waiting)
    assert after == before
    row.measured("first acknowledgement", rig.flows(1), "s", 3.0)
    rig.flows(200)
    rig.judge()


@pytest.mark.chaos(
    row=14,
    fault="one publisher's way to NATS at 30 kB/s",
    figure="its streams leave it; the others' p99 stays",
)
def test_row_14_slow_way_to_nats(rig: Rig, row: Row) -> None:
    rig.start(proxied=["p0"])
    rig.flows(200)
    slowed = rig.served_by("p0")
    rig.nats_proxies["p0"].add(Way.UP, Bandwidth(bytes_per_s=30_000.0))
    began = time.monotonic()
    with rig.outage() as outage:
        until(lambda: not slowed & rig.served_by("p0"), "the streams of the slow publisher left it", 60.0)
        row.measured("left after", time.monotonic() - began, "s", 10.0)
        rig.flows(300)
    row.injected("bytes went slowly", rig.nats_proxies["p0"].touched["Bandwidth"])
    rig.judge()
    others = rig.specs().keys() - slowed
    row.measured("p99 of the others", rig.p99_ms(others, outage.began_ns, outage.ended_ns), "ms")
    row.measured("before", rig.p99_ms(others, 0, outage.began_ns), "ms")


@pytest.mark.chaos(
    row=15, ci=True, fault="acknowledgements lost after the store", figure="resumed by what is stored"
)
def test_row_15_acknowledgement_lost(rig: Rig, row: Row) -> None:
    rig.start(publishers=1, proxied=["p0"])
    proxy = rig.nats_proxies["p0"]
    for _ in range(3):
        rig.flows(100)
        proxy.add(Way.DOWN, Timeout())
        until(lambda: proxy.touched["Timeout"], "answers vanish")
        opened = rig.publishers()["p0"].reconnects
        until(lambda opened=opened: not rig.publishers()["p0"].connected, "the publisher gives up", 20.0)
        proxy.lift(Way.DOWN, Timeout)
        until(lambda opened=opened: rig.publishers()["p0"].reconnects > opened, "a new connection", 20.0)
    row.injected("answers of NATS vanished", proxy.touched["Timeout"])
    rig.flows(200)
    rig.judge()
    row.measured("stored twice", 0, "")


@pytest.mark.chaos(
    row=16,
    ci=True,
    fault="an outage longer than the dedup window, after lost acknowledgements",
    figure="nothing stored twice",
)
def test_row_16_outage_beyond_the_dedup_window(rig: Rig, row: Row) -> None:
    outlast_the_dedup_window(rig, row)
    rig.judge()


def outlast_the_dedup_window(rig: Rig, row: Row) -> None:
    """Make the relay resend events that are stored, unacknowledged, and forgotten by NATS's dedup."""
    rig.start(publishers=1, proxied=["p0"], config={"nats": {"stream": {"duplicate_window_s": 1}}})
    proxy = rig.nats_proxies["p0"]
    rig.flows(100)
    proxy.add(Way.DOWN, Timeout())
    until(lambda: proxy.touched["Timeout"] > 1_000, "answers vanish")
    proxy.down()
    time.sleep(5.0)
    row.injected("answers of NATS vanished", proxy.touched["Timeout"])
    proxy.lift(Way.DOWN, Timeout)
    proxy.up()
    rig.flows(200)


@pytest.mark.chaos(
    row=12,
    fault="NATS down while one stream floods, then its backlog drains",
    figure="the others' p99 within 25 ms more while it drains",
)
def test_row_12b_backlog_of_one_stream_drains(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(200)
    flooded = f"usdm:{FLOOD}"
    others = rig.specs().keys() - {flooded}
    calm_ns = time.time_ns()
    rig.nats.kill()
    row.injected("nats-server killed", not rig.nats.running)
    rig.exchange.flood(FLOOD, 50 * RATE_PER_S)
    time.sleep(30.0 if row.long else 12.0)
    rig.nats.start()
    rig.flows(1, others)
    until(lambda: all(rig.stats()[key].backlog_count < 50 for key in others), "the others have caught up")
    backlog, from_ns = rig.stats()[flooded].backlog_count, time.time_ns()
    row.injected("a backlog of one stream", backlog > 10_000)
    until(lambda: rig.stats()[flooded].backlog_count < 500, "the backlog is gone")
    to_ns = time.time_ns()
    rig.exchange.calm(FLOOD)
    rig.flows(100)
    rig.judge()
    row.measured("backlog", backlog, "events")
    row.measured("drained in", (to_ns - from_ns) / NANOSECONDS, "s")
    row.measured("p99 of the others", rig.p99_ms(others, from_ns, to_ns), "ms")
    row.measured("before", rig.p99_ms(others, calm_ns - int(NANOSECONDS), calm_ns), "ms")


@pytest.mark.chaos(
    row=17,
    ci=True,
    fault="one publisher cut off by the network, no packet comes back",
    figure="its streams move within 3 s",
)
def test_row_17_partitioned_publisher(rig: Rig, row: Row) -> None:
    with Island() as island:
        rig.cluster.seams[publisher("p0")] = Seams(network=island.name)
        rig.start(proxied={"p0": island.outside})
        rig.flows(200)
        until(lambda: rig.served_by("p0"), "the publisher on the island serves streams")
        moved = rig.served_by("p0")
        with rig.outage() as outage:
            port = rig.nats_proxies["p0"].port
            assert island.reached(port)
            island.part()
            row.injected("packets of the island vanish", not island.reached(port))
            until(lambda: not moved & rig.served_by("p0"), "its streams moved", 30.0)
            time.sleep(2.0)
        island.heal()
        rig.flows(200)
        rig.judge()
        row.measured("longest wait", rig.longest_s(moved, outage.began_ns, outage.ended_ns), "s", 3.0)


@pytest.mark.chaos(
    row=18,
    fault="a JetStream stream is full and refuses (10077)",
    figure="counted, at most one try a second",
)
def test_row_18_jetstream_full(rig: Rig, row: Row) -> None:
    rig.start(publishers=1)
    rig.flows(100)
    name = f"SLUICE_usdm_{FLOOD.replace('@', '_')}"
    config = rig.api(f"STREAM.INFO.{name}")["config"]
    rig.api(f"STREAM.UPDATE.{name}", config | {"discard": "new", "max_msgs": 50})
    until(lambda: rig.publishers()["p0"].errors, "a refusal")
    errors, began = rig.publishers()["p0"].errors, time.monotonic()
    row.injected("NATS refused", "10077" in rig.publishers()["p0"].last_error)
    rig.flows(300, rig.specs().keys() - {f"usdm:{FLOOD}"})
    time.sleep(3.0)
    tries = (rig.publishers()["p0"].errors - errors) / (time.monotonic() - began)
    row.measured("refusals", tries, "per s", 2.0)
    assert tries < 5.0
    rig.api(f"STREAM.UPDATE.{name}", config)
    rig.flows(200)
    rig.judge()


@pytest.mark.chaos(
    row=19,
    fault="the disk below NATS is full",
    figure="nothing acknowledged is lost, reported within 5 s",
)
def test_row_19_nats_disk_full(rig: Rig, row: Row, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "8m") as disk:
        rig.start(rate_per_s=400.0, nats_directory=disk / "nats")
        until(lambda: free_bytes(disk) < 100_000, "the disk is full", 60.0)
        row.injected("the disk below NATS is full", free_bytes(disk) < 100_000)
        began = time.monotonic()
        until(lambda: rig.problem("behind") or rig.problem("NATS"), "it is reported", 30.0)
        row.measured("reported after", time.monotonic() - began, "s", 5.0)
        time.sleep(1.0)
        enlarge(disk, "256m")
        rig.nats.restart()
        rig.flows(200)
        rig.judge()


def stored_and_silent(rig: Rig) -> tuple[str, str]:
    """The key and the JetStream name of a stream that sends no more, its events kept for the judge."""
    key, name = f"usdm:{FLOOD}", f"SLUICE_usdm_{FLOOD.replace('@', '_')}"
    rig.exchange.flood(FLOOD, 0.0)
    until(lambda: not rig.stats()[key].backlog_count, "all of the stream is stored")
    # The stats may be older than the last events that were on their way.
    time.sleep(0.3)
    rig.keep(key)
    return key, name


@pytest.mark.chaos(row=20, fault="a JetStream stream is deleted", figure="made again within 10 s, reported")
def test_row_20_stream_deleted(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(100)
    key, name = stored_and_silent(rig)
    row.injected("JetStream deleted it", rig.api(f"STREAM.DELETE.{name}")["success"])
    rig.exchange.calm(FLOOD)
    row.measured("first acknowledgement", rig.flows(1, [key]), "s", 12.0)
    assert rig.problem(name)
    rig.flows(200)
    rig.judge()


@pytest.mark.chaos(
    row=20,
    fault="a JetStream stream in memory instead of on disk",
    figure="reported with a remedy within 10 s, which helps",
)
def test_row_20b_wrong_storage(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(100)
    key, name = stored_and_silent(rig)
    config = rig.api(f"STREAM.INFO.{name}")["config"]
    rig.api(f"STREAM.DELETE.{name}")
    made = rig.api(f"STREAM.CREATE.{name}", config | {"storage": "memory"})
    row.injected("the stream is in memory", made["config"]["storage"] == "memory")
    began = time.monotonic()
    until(lambda: f"nats stream rm {name}" in rig.problem(name), "the remedy is reported", 30.0)
    row.measured("reported after", time.monotonic() - began, "s", 10.0)
    rig.api(f"STREAM.DELETE.{name}")
    rig.exchange.calm(FLOOD)
    row.measured("first acknowledgement", rig.flows(1, [key]), "s", 12.0)
    assert rig.api(f"STREAM.INFO.{name}")["config"]["storage"] == "file"
    rig.flows(200)
    rig.judge()


@pytest.mark.chaos(
    row=42,
    fault="the permission to publish one stream is withdrawn",
    figure="counted by code, reported, the others go on",
)
def test_row_42_permission_withdrawn(rig: Rig, row: Row) -> None:
    subject = "binance.usdm.btcusdt.trade"
    password = rig.directory / "password"
    password.write_text("relay")
    login = {"user": "relay", "password_file": str(password)}
    rig.start(publishers=1, nats_config=accounts(), config={"nats": login})
    rig.flows(100)
    key = f"usdm:{FLOOD}"
    errors = rig.publishers()["p0"].errors_by_code
    rig.nats.reload(accounts(denied=subject))
    until(
        lambda: "permission" in rig.publishers()["p0"].last_error.lower(), "a refusal for want of permission"
    )
    before = rig.stats()[key].acknowledged
    longest_ms = longest_wait_ms(rig, 6.0)
    row.measured("longest unanswered", longest_ms / 1e3, "s", ANSWER_S)
    assert longest_ms < 1e3 * (ANSWER_S + 1.0)
    found = rig.publishers()["p0"].errors_by_code
    # The complaint names no message; the ones that it was about are given up by the clock.
    for code in ("nats", "timeout"):
        row.injected(f"{code} errors", found.get(code, 0) - errors.get(code, 0))
    rig.flows(100, rig.specs().keys() - {key})
    assert rig.stats()[key].acknowledged == before
    until(lambda: rig.problem(key.partition(":")[2]), "it is reported", 30.0)
    rig.nats.reload(accounts())
    row.measured("first acknowledgement", rig.flows(1, [key]), "s", 5.0)
    rig.flows(200)
    rig.judge()


@pytest.mark.chaos(
    row=42,
    fault="NATS refuses what one stream sends (10054), then stops to store it (503)",
    figure="counted by code, nothing waits beyond the time-out, the others go on",
)
def test_row_42b_error_replies(rig: Rig, row: Row) -> None:
    rig.start(publishers=1)
    rig.flows(100)
    key, name = f"usdm:{FLOOD}", f"SLUICE_usdm_{FLOOD.replace('@', '_')}"
    config = rig.api(f"STREAM.INFO.{name}")["config"]
    others = rig.specs().keys() - {key}
    wrong = {
        "10054": {"max_msg_size": 10},
        "503": {"subjects": [one for one in config["subjects"] if "sluice" in one]},
    }
    for code, change in wrong.items():
        rig.api(f"STREAM.UPDATE.{name}", config | change)
        until(lambda code=code: rig.publishers()["p0"].errors_by_code.get(code), f"{code} is counted", 20.0)
        row.injected(f"NATS answered with {code}", True)
        longest_ms = longest_wait_ms(rig, 3.0)
        row.measured(f"longest unanswered with {code}", longest_ms / 1e3, "s", ANSWER_S)
        assert longest_ms < 1e3 * (ANSWER_S + 1.0)
        rig.flows(50, others)
        row.measured("made right by the relay after", rig.flows(1, [key]), "s", 10.0)
    rig.flows(200)
    rig.judge()


def longest_wait_ms(rig: Rig, seconds: float) -> float:
    """For NATS's answer to any message, checked again and again."""
    waits = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        waits += [one.waiting_ms for one in rig.publishers().values()]
        time.sleep(0.05)
    return max(waits)


@pytest.mark.chaos(
    row=36, fault="one stream floods, a hundredfold", figure="the others' p99 within 25 ms more"
)
def test_row_36_flood(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(300)
    flooded = f"usdm:{FLOOD}"
    others = rig.specs().keys() - {flooded}
    received = rig.stats()[flooded].received
    with rig.outage() as outage:
        rig.exchange.flood(FLOOD, 100 * RATE_PER_S)
        time.sleep(8.0)
        rig.exchange.calm(FLOOD)
    row.injected("the flood was read", rig.stats()[flooded].received - received > 50 * RATE_PER_S)
    rig.flows(100)
    rig.judge()
    row.measured("p99 of the others", rig.p99_ms(others, outage.began_ns, outage.ended_ns), "ms")
    row.measured("before", rig.p99_ms(others, 0, outage.began_ns), "ms")


@pytest.mark.chaos(
    row=36, ci=True, fault="the flooded stream answers nobody for 8 s", figure="it reads on, nothing missing"
)
def test_row_36b_no_time_to_answer(rig: Rig, row: Row) -> None:
    rig.start(config={"exchange": {"heal": False}})
    rig.flows(100)
    key = f"usdm:{FLOOD}"
    before = rig.stats()[key]
    rig.exchange.flood(FLOOD, 10 * RATE_PER_S)
    rig.cluster.speechless.add(stream(FLOOD))
    until(lambda: key in _unreachable(rig), "it is reported", 10.0)
    time.sleep(8.0)
    rig.cluster.speechless.clear()
    rig.exchange.calm(FLOOD)
    rig.flows(100)
    after = rig.stats()[key]
    row.injected("the flood was read", after.received - before.received > 50 * RATE_PER_S)
    assert (after.pid, after.epoch) == (before.pid, before.epoch), "it was replaced"
    assert rig.judge().missing == 0


def _unreachable(rig: Rig) -> tuple[str, ...]:
    status = rig.status()
    return status.unreachable if status else ()


def accounts(denied: str = "") -> str:
    """A client that gives no name may do all; the relay may publish all but `denied`."""
    permissions = f', permissions: {{ publish: {{ allow: [">"], deny: ["{denied}"] }} }}' if denied else ""
    return (
        "no_auth_user: everybody\n"
        "accounts { R { jetstream: enabled, users: [ { user: everybody, password: everybody },"
        f" {{ user: relay, password: relay{permissions} }} ] }} }}"
    )
