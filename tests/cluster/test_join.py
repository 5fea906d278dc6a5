"""Drivers that come and go on a Ray cluster that somebody else started, with token authentication."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from actors.client import StartMode, connect
from relay.adapters.local.cluster_files import ClusterFile, LocalCluster, running_cluster
from relay.adapters.local.process_tree import children, descendants, end_processes, is_running
from relay.errors import ClusterError
from tests.support.paths import ROOT

START_S = 60.0

DRIVER = """
import json, sys, time
from actors.cluster.options import ActorClasses
from actors.client import StartMode, connect
from relay.config import parse_config
from relay.errors import ClusterError

STAND_INS = ActorClasses(
    stream="tests.cluster.stand_ins:StandInStream",
    publisher="tests.cluster.stand_ins:StandInPublisher",
    publisher_settings="tests.cluster.stand_ins:StandInSettings",
)
CONFIG = "nats: {delivery: core}\\nshards: [{stream: btcusdt@trade}, {stream: ethusdt@trade}]\\n"

def until(met):
    for _ in range(600):
        try:
            if met(connection.status()):
                return connection.status()
        except ClusterError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"never happened: {connection.status()}")

connection = connect(StartMode[sys.argv[1]], classes=STAND_INS)
told = {"started_here": connection.started_here}
if "up" in sys.argv:
    brought = connection.bring_up(parse_config(CONFIG, {"HOME": "/home/somebody"}))
    told |= {"created": brought.created, "differences": brought.differences}
count = 2 if "two" in sys.argv else 1
connection.scale(count, "test")
until(lambda status: status.scale.actual == len(status.publishers) == count and len(status.streams) == 2)
status = until(lambda status: len(status.publishers) == count and all(one.linked for one in status.streams))
told["pids"] = {stream.stream: stream.pid for stream in status.streams}
told["niceness"] = [publisher.streams[0] for publisher in status.publishers]
told["sockets"] = status.publishers[0].unix_path
if "down" in sys.argv:
    told["ended"] = len(connection.take_down(5.0).streams)
    told["running"] = connection.running()
connection.close()
print(json.dumps(told))
"""

# With a name of Ray's; 15 is PR_SET_NAME.
HELPER = """
import ctypes, time
ctypes.CDLL(None).prctl(15, b"ray::Helper")
print("named", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of drivers beside a running `ray start --head`, which ends with the tests."""
    state = tmp_path_factory.mktemp("state")
    with tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp", ignore_cleanup_errors=True) as short:
        token = Path(short) / "token"
        token.write_text(secrets.token_hex(32))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environ |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_TMPDIR": short,
            "SLUICE_STATE_DIR": str(state),
            "PYTHONPATH": str(ROOT),
        }
        yield from _cluster(environ, Path(short))


def _cluster(environ: dict[str, str], short: Path) -> Iterator[dict[str, str]]:
    before = children(os.getpid())
    ray = Path(sys.executable).parent / "ray"
    options = ["--head", "--block", "--port=0", "--num-cpus=3", "--include-dashboard=false"]
    command = [str(ray), "start", *options, "--object-store-memory=100000000", "--disable-usage-stats"]
    log = (short / "log").open("w")
    head = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    try:
        _await_joinable(environ, head, short / "log")
        yield environ
    finally:
        everything = descendants(children(os.getpid()) - before)
        head.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            head.wait(30)
        end_processes(everything, 5.0)
        head.wait(5)
        log.close()
    assert not [process for process in everything if is_running(process)]


def _await_joinable(environ: dict[str, str], head: subprocess.Popen[bytes], log: Path) -> None:
    """Its address is on disk, and it says that it runs, before its raylet takes the first driver."""
    deadline = time.monotonic() + START_S
    join = [sys.executable, "-c", "import ray; ray.init(address='auto', log_to_driver=False)"]
    while subprocess.run(join, env=environ, cwd="/", capture_output=True, check=False).returncode:
        assert head.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def drive(environ: dict[str, str], *what: str) -> dict:
    command = [sys.executable, "-c", DRIVER, *what]
    done = subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.long
def test_actors_outlive_the_driver_that_brought_them_up(environ):
    first = drive(environ, "AUTO", "up")
    assert (first["started_here"], first["created"]) == (False, True)
    assert first["niceness"] == ["0"], "lifted, although this cluster starts workers at nice 15"

    second = drive(environ, "AUTO", "up")
    assert (second["created"], second["differences"]) == (False, [])
    assert second["pids"] == first["pids"]

    third = drive(environ, "JOIN", "two", "down")
    assert third["pids"] == first["pids"]
    assert third["niceness"] == ["0", "0"], "made after the first driver had gone"
    assert (third["ended"], third["running"]) == (2, False)
    Path(first["sockets"]).parent.rmdir()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "auto:x"])
def test_what_cannot_be_joined_is_said_at_once(address):
    with pytest.raises(ClusterError, match=f"cannot join the Ray cluster at {address}"):
        connect(StartMode.JOIN, address=address)


def test_without_any_cluster_joining_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ClusterError, match="start the relay with"):
        connect(StartMode.JOIN)


def test_run_does_not_find_a_demo_that_status_finds(tmp_path):
    demo = LocalCluster("127.0.0.1:3", "", "", str(tmp_path / "sluice-ghi"), 3, shared=False)
    announced = ClusterFile(tmp_path, demo)
    assert running_cluster(tmp_path) == demo
    assert running_cluster(tmp_path, shared=True) is None
    announced.remove()


def test_the_files_of_a_dead_driver_are_swept_away(tmp_path):
    run_directory = tmp_path / "sluice-abc"
    run_directory.mkdir()
    dead = LocalCluster("127.0.0.1:1", str(run_directory / "token"), "", str(run_directory), 1)
    (tmp_path / "cluster-1.json").write_text(json.dumps(asdict(dead)))
    living = LocalCluster("127.0.0.1:2", "", "", str(tmp_path / "sluice-def"), 2)
    announced = ClusterFile(tmp_path, living)
    assert running_cluster(tmp_path) == living
    announced.remove()
    assert running_cluster(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_processes_that_a_dead_driver_left_end_with_its_files(tmp_path):
    """Helpers of Ray's daemons outlive them when nobody ends them in order."""
    run_directory = tmp_path / "sluice-abc"
    run_directory.mkdir()
    dead = LocalCluster("127.0.0.1:1", str(run_directory / "token"), "", str(run_directory), 1)
    (tmp_path / "cluster-1.json").write_text(json.dumps(asdict(dead)))
    log = run_directory / "log"
    log.write_text("")
    helper = [sys.executable, "-c", HELPER]
    with log.open("a") as theirs:
        orphan = subprocess.Popen(helper, stdout=subprocess.PIPE, stderr=theirs)
        bystander = subprocess.Popen(helper, stdout=subprocess.PIPE)
        pager = subprocess.Popen(["sleep", "60"], stdout=theirs)
    processes = (orphan, bystander, pager)
    try:
        for one in (orphan, bystander):
            assert one.stdout.readline() == b"named\n"
        assert running_cluster(tmp_path) is None
        assert orphan.wait(5) == -signal.SIGKILL
        assert (bystander.poll(), pager.poll()) == (None, None)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
