"""The controller over a real local Ray, with stand-ins for the actors that move events."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from actors.client import RelayClient, StartMode, connect
from actors.cluster.options import ActorClasses
from relay.adapters.local.process_tree import children, descendants, is_running
from relay.config import Config, parse_config
from relay.errors import ClusterError, UsageError
from relay.model.stats import RelayStatus
from relay.observability.metrics import Metric
from tests.support import polling
from tests.support.paths import ROOT

STAND_INS = ActorClasses(
    stream="tests.cluster.stand_ins:StandInStream",
    publisher="tests.cluster.stand_ins:StandInPublisher",
    publisher_settings="tests.cluster.stand_ins:StandInSettings",
)
DEADLINE_S = 30.0
STREAMS = ("btcusdt@trade", "ethusdt@trade", "solusdt@trade")


def config(*streams: str) -> Config:
    shards = "".join(f"- {{stream: {name}}}\n" for name in streams or STREAMS)
    return parse_config(f"nats: {{delivery: core}}\nshards:\n{shards}", {"HOME": "/home/somebody"})


def until(met: Callable[[], bool], what: str) -> None:
    def met_by_now() -> bool:
        with contextlib.suppress(ClusterError):
            return met()
        return False

    polling.until(met_by_now, what, DEADLINE_S, pause_s=0.05)


def is_well(status: RelayStatus, publishers: int) -> bool:
    serving = {publisher.publisher for publisher in status.publishers}
    return (
        len(status.streams) == len(STREAMS)
        and status.unreachable == ()
        and status.scale.actual == len(serving) == publishers
        and {stream.publisher for stream in status.streams} == serving
    )


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayClient]:
    """A Ray of our own for all tests; nothing of it may be left when they are over."""
    before = children(os.getpid())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        patch.delenv("RAY_ADDRESS", raising=False)
        one = connect(StartMode.LOCAL, needed_cpus=2, include_dashboard=False, classes=STAND_INS)
        assert one.token_path is not None
        run_directory = one.token_path.parent
        ours = children(os.getpid()) - before
        try:
            yield one
            everything = descendants(ours)
        finally:
            one.close()
        assert not [process for process in everything if is_running(process)]
        assert not run_directory.exists()
        assert not list(Path(os.environ["SLUICE_STATE_DIR"]).iterdir())
        assert "RAY_AUTH_MODE" not in os.environ or os.environ["RAY_AUTH_MODE"] != "token"


@pytest.fixture
def relay(connection: RelayClient) -> RelayClient:
    """Running and at peace, with one publisher."""
    connection.bring_up(config())
    connection.scale(1, "fixture")
    until(lambda: is_well(connection.status(), 1), "a relay at peace")
    return connection


def pids(status: RelayStatus) -> dict[str, int]:
    streams = {stream.stream: stream.pid for stream in status.streams}
    return streams | {publisher.publisher: publisher.pid for publisher in status.publishers}


def test_a_relay_comes_up_and_bringing_it_up_again_changes_nothing(relay):
    before = pids(relay.status())
    again = relay.bring_up(config())
    assert (again.created, again.differences) == (False, ())
    assert pids(relay.status()) == before


@pytest.mark.needs("ss")
def test_nothing_listens_beyond_loopback(relay):
    ours = {process.pid for process in descendants(children(os.getpid()))}
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    found = [line.split()[3] for line in listening.splitlines() if any(f"pid={pid}," in line for pid in ours)]
    assert len(found) > 5
    assert [
        address for address in found if not address.startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:"))
    ] == []


def test_workers_run_at_normal_priority_and_know_the_secret(relay):
    niceness, secret_bytes = relay.status().publishers[0].streams
    assert (niceness, secret_bytes) == ("0", "32")


def test_sockets_have_a_private_directory(relay):
    directory = Path(relay.status().publishers[0].unix_path).parent
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len(str(directory)) < 60


def test_process_titles_tell_the_backlog_whatever_is_called(relay):
    pid = relay.status().streams[0].pid
    title = Path(f"/proc/{pid}/cmdline")
    until(lambda: title.read_text().startswith("ray::Stream btcusdt@trade backlog=3"), "the title")
    uptime_s = relay.status().uptime_s
    seen = set()
    # Some observations by the controller, each of which calls a method of it.
    while relay.status().uptime_s < uptime_s + 3:
        seen.add(title.read_text().rstrip("\0"))
    assert seen == {"ray::Stream btcusdt@trade backlog=3"}


def test_metrics_are_exported_with_the_streams_key_and_counters_from_zero_on(relay):
    (node,) = ray.nodes()
    port = node["MetricsExportPort"]
    wanted = {Metric.STREAM_BACKLOG: " 3.0", Metric.STREAM_RECEIVED: " 13.0", Metric.STREAM_LOST: " 0.0"}

    def exported() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        mine = [line for line in lines if 'stream="usdm:btcusdt@trade"' in line]
        return all(
            any(line.startswith(f"{metric.value.exported_name}{{") and line.endswith(value) for line in mine)
            for metric, value in wanted.items()
        )

    until(exported, "a gauge, a counter, and one of what did not happen")


def test_scaling_up_and_down_moves_the_streams(relay):
    assert relay.scale(3, "test").mode == "fixed"
    until(lambda: is_well(relay.status(), 3), "three publishers")
    relay.scale(2, "test")
    until(lambda: is_well(relay.status(), 2), "two publishers")
    with pytest.raises(UsageError, match="1 to 3"):
        relay.scale(4, "test")


@pytest.mark.parametrize("name", ["p0", "ethusdt@trade"])
def test_a_killed_actor_is_back_with_its_place(relay, name):
    before = relay.status()
    os.kill(pids(before)[name], signal.SIGKILL)

    def back() -> bool:
        status = relay.status()
        return is_well(status, 1) and pids(status)[name] != pids(before)[name]

    until(back, "the actor's next incarnation")
    others = pids(relay.status()).items() - pids(before).items()
    assert {changed for changed, _ in others} == {name}


@pytest.mark.parametrize("name", ["p0", "ethusdt@trade"])
def test_a_stopped_actor_is_replaced_and_cannot_come_back(relay, name):
    stopped = pids(relay.status())[name]
    identity = next(process for process in descendants(children(os.getpid())) if process.pid == stopped)
    os.kill(stopped, signal.SIGSTOP)
    until(
        lambda: stopped not in pids(relay.status()).values() and is_well(relay.status(), 1), "a replacement"
    )
    until(lambda: not is_running(identity), "the end of the stopped process")


def test_a_killed_controller_finds_everything_again(relay):
    relay.scale(2, "ann")
    until(lambda: is_well(relay.status(), 2), "two publishers")
    before = relay.status()
    os.kill(before.controller_pid, signal.SIGKILL)
    until(lambda: relay.status().controller_pid != before.controller_pid, "the next controller")
    until(lambda: is_well(relay.status(), 2), "the relay")
    assert pids(relay.status()) == pids(before)
    assert relay.status().scale.reason == "set by ann"
    assert relay.bring_up(config()).differences == ()


def test_a_stream_that_restarts_without_a_controller_knows_its_publisher(relay):
    """With the controller stopped, nothing but what was written down informs the new incarnation."""
    before = relay.status()
    os.kill(before.controller_pid, signal.SIGSTOP)
    try:
        os.kill(pids(before)["btcusdt@trade"], signal.SIGKILL)
        actor = ray.get_actor("sluice/stream/usdm:btcusdt@trade", namespace="sluice")

        def served() -> bool:
            try:
                stats = ray.get(actor.stats.remote(), timeout=5)
            except ray.exceptions.RayError:
                return False
            return stats.pid != pids(before)["btcusdt@trade"] and stats.publisher == "p0"

        until(served, "the stream's next incarnation, with a publisher")
    finally:
        os.kill(before.controller_pid, signal.SIGCONT)
    # Until its next observation the controller reports what it saw before it was stopped.
    killed = pids(before)["btcusdt@trade"]
    until(lambda: killed not in pids(relay.status()).values(), "an observation of the next incarnation")


def test_applying_another_configuration_touches_what_changed(relay):
    before = pids(relay.status())
    changed = config("btcusdt@trade", "ethusdt@trade", "bnbusdt@trade")
    assert relay.differences(changed) == ("solusdt@trade is removed", "bnbusdt@trade is added")
    assert relay.bring_up(changed).differences == ("solusdt@trade is removed", "bnbusdt@trade is added")
    until(lambda: is_well(relay.status(), 1) and "bnbusdt@trade" in pids(relay.status()), "the new stream")
    after = pids(relay.status())
    assert {name: pid for name, pid in after.items() if name in before} == {
        name: pid for name, pid in before.items() if name != "solusdt@trade"
    }


DRIVER = """
import json, os, sys, time
from actors.client import StartMode, connect
connection = connect(StartMode[sys.argv[1]])
status = connection.status()
scale = connection.scale(2, "another terminal")
print(json.dumps([connection.started_here, status.controller_pid, scale.mode]))
connection.close()
"""


def test_another_terminal_finds_the_relay_and_changes_it(relay):
    """Without the token in its environment; started in another directory."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        environ.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, "JOIN"],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    started_here, controller_pid, mode = json.loads(done.stdout)
    assert (started_here, controller_pid, mode) == (False, relay.status().controller_pid, "fixed")
    until(lambda: is_well(relay.status(), 2), "two publishers")


def test_a_relay_taken_down_is_gone_and_can_come_up_again(relay):
    everything = set(pids(relay.status()).values()) | {relay.status().controller_pid}
    processes = {process for process in descendants(children(os.getpid())) if process.pid in everything}
    assert len(processes) == len(everything)
    ended = relay.take_down(5.0)
    assert {stream.stream for stream in ended.streams} == set(STREAMS)
    assert (ended.left, ended.silent) == (9, ())
    assert not relay.running()
    until(lambda: not any(map(is_running, processes)), "the end of every actor's process")
    with pytest.raises(ClusterError, match="no relay"):
        relay.status()
    with pytest.raises(ClusterError, match="no relay"):
        relay.take_down(5.0)
    assert relay.bring_up(config()).created


def test_a_relay_whose_controller_is_stopped_can_be_taken_down(relay):
    os.kill(relay.status().controller_pid, signal.SIGSTOP)
    ended = relay.take_down(1.0)
    assert {stream.stream for stream in ended.streams} == set(STREAMS)
    assert not relay.running()
