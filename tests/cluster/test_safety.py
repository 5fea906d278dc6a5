"""The whole relay as it comes up by default: who listens where, and where its secrets can be seen."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import pytest

from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.local.process_tree import children, descendants
from tests.support.driver_processes import ROOT, Command, ask, started
from tests.support.polling import until

USER, CANARY = "sluice-canary-user", "canary-a83f19c4"
CONFIG = "shards: [btcusdt@trade, ethusdt@bookTicker]\npublishers: {max: 2}\n"
START_S = 90.0

# TCP listeners of a process of each kind, at most; all on loopback. A new one has to be argued for here.
ALLOWED = {
    "simulated exchange": 1,
    "gcs_server": 2,
    "raylet": 2,
    "dashboard": 4,
    "agent": 4,
    "runtime_env agent": 1,
    # Metrics of Ray's autoscaler, which a head has whether or not anything scales; none where another
    # Ray of this machine has its port.
    "autoscaler monitor": 1,
    # Ray's own, which every worker has, and for a publisher the streams of other nodes.
    "Stream": 1,
    "Publisher": 2,
    "Controller": 2,
    "idle worker": 1,
    "driver": 1,
}
KINDS = (
    ("-m simulator", "simulated exchange"),
    ("gcs/gcs_server", "gcs_server"),
    ("raylet/raylet", "raylet"),
    ("runtime_env/agent", "runtime_env agent"),
    ("autoscaler/_private/monitor.py", "autoscaler monitor"),
    ("dashboard/agent.py", "agent"),
    ("dashboard/dashboard.py", "dashboard"),
    ("ray-dashboard", "dashboard"),
    ("ray::DashboardAgent", "agent"),
    ("ray::RuntimeEnvAgent", "runtime_env agent"),
    ("ray::Stream", "Stream"),
    ("ray::Publisher", "Publisher"),
    ("ray::Controller", "Controller"),
    ("ray::", "idle worker"),
    ("driver.py run", "driver"),
)

# Everything that Ray's head keeps, as somebody sees it who has the token.
DUMP = """
import sys
from actors.client import StartMode, connect
from ray.experimental import internal_kv
connection = connect(StartMode.JOIN)
for namespace in (None, b"sluice/sluice"):
    for key in internal_kv._internal_kv_list("", namespace=namespace):
        value = internal_kv._internal_kv_get(key, namespace=namespace) or b""
        sys.stdout.buffer.write(key + b" " + value + b"\\n")
connection.close()
"""

PAGES = (
    *("logical/actors", "nodes?view=details", "api/jobs/", "api/cluster_status"),
    *(f"api/v0/{what}?detail=1" for what in ("actors", "tasks", "workers", "runtime_envs")),
)

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@dataclass
class Whole:
    run: Command
    home: Path
    environ: dict[str, str]
    dashboard: str
    token: str

    @property
    def processes(self) -> dict[int, str]:
        """Command lines by pid."""
        own = self.run.process.pid
        pids = [own, *(process.pid for process in descendants(children(own)))]
        return {pid: found for pid in pids if (found := command_line(pid))}

    def get(self, url: str) -> str:
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.read().decode(errors="replace")
        except (OSError, ValueError, HTTPException):
            return ""


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except FileNotFoundError:
        return ""


def kind_of(line: str) -> str:
    return next((kind for mark, kind in KINDS if mark in line), line)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    home = tmp_path_factory.mktemp("home")
    config = home / "few.yaml"
    config.write_text(CONFIG)
    users = f"authorization {{ users: [{{user: {USER}, password: {CANARY}}}] }}"
    with EmbeddedNats(home / "nats", extra_config=users) as nats:
        environ = {"NATS_URL": nats.url.replace("://", f"://{USER}:{CANARY}@")}
        with started("run", "-c", str(config), "--simulate", home=home, **environ) as run:
            dashboard = re.search(r"dashboard: (\S+)", run.read_until("dashboard: "))
            run.read_until("2/2 streams live")
            assert dashboard is not None
            (state,) = (home / "state" / "sluice").glob("cluster-*.json")
            token = Path(json.loads(state.read_text())["token_path"]).read_text()
            one = Whole(run, home, environ, dashboard[1], token)
            await_stored(one)
            yield one
            run.process.terminate()
            assert run.end() == 0
    # What it logged at its end counts as well.
    assert CANARY not in "\n".join(run.lines)


def await_stored(whole: Whole) -> None:
    """The login works, and actors have been at it for a while."""

    def stored() -> bool:
        status = json.loads(ask("status", "--json", home=whole.home).stdout)
        return bool(status["streams"]) and all(one["acknowledged"] for one in status["streams"])

    until(stored, "every stream has stored something", START_S)


def tcp_listeners(pids: dict[int, str]) -> list[tuple[str, str]]:
    """(kind of process, address) of each."""
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = []
    for line in lines:
        holders = [int(pid) for pid in re.findall(r"pid=(\d+)", line)]
        ours = [pid for pid in holders if pid in pids]
        if ours:
            found.append((kind_of(pids[ours[0]]), line.split()[3]))
    return found


@pytest.mark.needs("ss")
def test_every_listener_is_expected_and_on_loopback(whole: Whole) -> None:
    processes = whole.processes
    found = tcp_listeners(processes)
    assert [one for one in found if not one[1].startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:"))] == []
    running = Counter(kind_of(line) for line in processes.values())
    listening = Counter(kind for kind, _ in found)
    assert listening["Publisher"] and listening["raylet"] and listening["gcs_server"]
    too_many = {kind for kind, count in listening.items() if count > ALLOWED.get(kind, 0) * running[kind]}
    assert too_many == set(), f"{listening} of {running}"


@pytest.mark.needs("ss")
def test_unix_sockets_are_for_this_user_alone(whole: Whole) -> None:
    lines = subprocess.run(["ss", "-lxpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    paths = [
        Path(line.split()[4])
        for line in lines
        if any(int(pid) in whole.processes for pid in re.findall(r"pid=(\d+)", line))
    ]
    ours = [path for path in paths if path.name.endswith(".sock")]
    assert ours, "publishers listen there"
    assert all(str(path).startswith("/") for path in paths), "no abstract names"
    for path in ours:
        assert (path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    for path in paths:
        private = [parent for parent in path.parents if parent.exists() and not parent.stat().st_mode & 0o077]
        assert private, f"{path} is open to others"


def test_ray_lets_nobody_in_without_the_token(whole: Whole) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{whole.dashboard}/api/jobs/", timeout=10)
    with refused.value as answer:
        assert answer.code in (401, 403)
    assert "driver.py run" in whole.get(f"{whole.dashboard}/api/jobs/")


def seen(whole: Whole) -> Iterator[tuple[str, str]]:
    """(place, text) of everything in which somebody might find a secret."""
    yield "output", "\n".join(whole.run.lines)
    for pid, line in whole.processes.items():
        yield f"command line of {pid}", line
    for command in (["status", "--json"], ["check", "-c", str(whole.home / "few.yaml")]):
        done = ask(*command, home=whole.home, **whole.environ)
        yield command[0], done.stdout + done.stderr
    dump = subprocess.run(
        [sys.executable, "-c", DUMP], capture_output=True, timeout=60, check=True, cwd=ROOT,
        env={"PATH": "", "HOME": str(whole.home), "XDG_STATE_HOME": str(whole.home / "state")},
    )  # fmt: skip
    yield "facts", dump.stdout.decode(errors="replace")
    for path in whole.home.rglob("*"):
        if path.is_file() and path.name != "token" and "nats" not in path.relative_to(whole.home).parts:
            yield str(path), path.read_text(errors="replace")
    for page in PAGES:
        yield page, whole.get(f"{whole.dashboard}/{page}")
    for kind, address in tcp_listeners(whole.processes):
        if kind in ("agent", "dashboard", "Controller"):
            yield f"metrics of {kind}", whole.get(f"http://127.0.0.1:{address.rpartition(':')[2]}/metrics")


def test_no_secret_can_be_seen_anywhere(whole: Whole) -> None:
    places = list(seen(whole))
    texts = dict(places)
    assert USER in texts["facts"] and "${NATS_URL}" in texts["facts"], "the dump holds the configuration"
    assert "StreamActor" in texts["logical/actors"], "the dashboard was read"
    assert any(place.endswith(".log") or ".out" in place for place in texts), "logs were read"
    assert any("ray_sluice_stream" in text for place, text in places if place.startswith("metrics"))
    assert [place for place, text in places if CANARY in text] == []
    assert [place for place, text in places if whole.token in text] == []
