"""The way of Kubernetes on one machine: a cluster with a token, drivers as submitted jobs, a second node."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.local.simulator_process import SimulatedExchange
from relay.binance.streams import Venue
from tests.chaos.island import Island
from tests.support import polling
from tests.support.driver_processes import NODE_OPTIONS, RAY, ROOT, free_port, node

DEADLINE_S = 90.0
# The head holds the controller, both streams and one publisher, and nothing more.
HEAD_CPUS, RESOURCES = "2", "resources: {stream_cpus: 0.5, publisher_cpus: 0.5}\n"

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@dataclass
class Site:
    folder: Path
    environ: dict[str, str]
    dashboard: str
    address: str
    exchange: SimulatedExchange
    nats: EmbeddedNats
    island: Island | None
    logs: list[Path] = field(default_factory=list)

    def ray(self, *args: str) -> str:
        done = subprocess.run(
            [RAY, *args], env=self.environ, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *args: str) -> str:
        """Start a driver as a job; returns the job's id."""
        told = self.ray(
            "job", "submit", "--no-wait", "--working-dir", ".", "--", "python", "driver.py", *args
        )
        found = re.search(r"raysubmit_\w+", told)
        assert found is not None, told
        return found[0]

    def job(self, *args: str) -> str:
        """Submit a driver, wait for its end, and return what it printed."""
        name = self.submit(*args)
        until(lambda: self.state(name) not in ("PENDING", "RUNNING"), f"the end of {args}")
        assert self.state(name) == "SUCCEEDED", self.said(name)
        return self.said(name)

    def state(self, job: str) -> str:
        return str(self._get(f"api/jobs/{job}")["status"])

    def said(self, job: str) -> str:
        return str(self._get(f"api/jobs/{job}/logs")["logs"])

    def _get(self, what: str) -> Any:
        token = Path(self.environ["RAY_AUTH_TOKEN_PATH"]).read_text()
        asked = urllib.request.Request(
            f"{self.dashboard}/{what}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)

    def status(self) -> dict[str, Any]:
        command = [sys.executable, "driver.py", "status", "--json", "--address", self.address]
        done = subprocess.run(
            command, env=self.environ, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        return json.loads(done.stdout) if done.returncode == 0 else {"streams": [], "publishers": []}

    def config(self, *streams: str) -> str:
        path = self.folder / f"{len(streams)}.yaml"
        path.write_text(
            f"nats: {{servers: ['nats://{self.address.rpartition(':')[0]}:{self.nats.port}']}}\n"
            f"exchange: {{url: '{self.exchange.url}'}}\njournal: {{directory: {self.folder}/journal}}\n"
            f"{RESOURCES}shards: [{', '.join(streams)}]\n"
        )
        return str(path)


def until(met: Callable[[], bool], what: str) -> None:
    polling.until(met, what, DEADLINE_S, pause_s=0.2)


def pids(status: dict[str, Any]) -> dict[str, int]:
    return {one["stream"]: one["pid"] for one in status["streams"]}


def is_live(status: dict[str, Any], streams: int = 2) -> bool:
    linked = [one for one in status["streams"] if one["linked"] and one["state"] == "live"]
    return len(linked) == len(status["streams"]) == streams


@pytest.fixture(scope="module")
def island() -> Iterator[Island | None]:
    with ExitStack() as stack:
        try:
            yield stack.enter_context(Island())
        except pytest.skip.Exception:
            yield None


@pytest.fixture(scope="module")
def site(island: Island | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    host = island.outside if island else "127.0.0.1"
    folder = tmp_path_factory.mktemp("site")
    with ExitStack() as stack:
        short = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="sl-", ignore_cleanup_errors=True))
        )
        (short / "token").write_text(secrets.token_hex(32))
        dashboard = free_port(host)
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "NATS_"))
        }
        environ |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(short / "token"),
            "RAY_TMPDIR": str(short),
            "SLUICE_STATE_DIR": str(folder / "state"),
            "RAY_API_SERVER_ADDRESS": f"http://{host}:{dashboard}",
        }
        # Behind the virtual interface as well.
        nats = stack.enter_context(EmbeddedNats(folder / "nats", extra_config='listen: "0.0.0.0:-1"'))
        exchange = stack.enter_context(SimulatedExchange(Venue.USDM, folder / "exchange.log"))
        port = free_port(host)
        head = (
            *(
                RAY,
                "start",
                "--head",
                f"--node-ip-address={host}",
                f"--port={port}",
                f"--num-cpus={HEAD_CPUS}",
            ),
            *(f"--dashboard-host={host}", f"--dashboard-port={dashboard}", *NODE_OPTIONS),
        )
        log = folder / "head.log"
        stack.enter_context(node(environ, log, *head))
        one = Site(folder, environ, f"http://{host}:{dashboard}", f"{host}:{port}", exchange, nats, island)
        await_jobs(one, log)
        yield one


def await_jobs(site: Site, log: Path) -> None:
    ask = [RAY, "job", "list"]

    def answered() -> bool:
        done = subprocess.run(ask, env=site.environ, cwd="/", capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    until(answered, f"a cluster that takes jobs: {log.read_text()}")


def driver_of(site: Site, job: str) -> int:
    """The pid of the driver that runs as this job."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (entry / "cmdline").read_bytes().split(b"\0")
            if b"driver.py" in line and job.encode() in (entry / "environ").read_bytes():
                return int(entry.name)
    raise AssertionError(f"{job} has no driver")


def test_drivers_are_jobs_that_come_and_go_and_the_actors_stay(site: Site) -> None:
    two = site.config("btcusdt@trade", "ethusdt@trade")
    first = site.submit("run", "-c", two)
    until(lambda: is_live(site.status()), "two live streams")
    before = pids(site.status())

    second = site.submit("run", "-c", two)
    until(lambda: "streams live" in site.said(second), "the second driver watches")
    assert "nothing changed: 2 streams" in site.said(second)
    os.kill(driver_of(site, first), signal.SIGKILL)
    until(lambda: site.state(first) == "FAILED", "the end of the first driver")
    site.ray("job", "stop", second)
    assert site.state(second) == "STOPPED"

    acknowledged = sum(one["acknowledged"] for one in site.status()["streams"])
    until(
        lambda: sum(one["acknowledged"] for one in site.status()["streams"]) > acknowledged + 50,
        "the actors go on without a driver",
    )
    assert pids(site.status()) == before
    assert "2 streams" in site.job("status")

    other = site.config("btcusdt@trade", "ethusdt@trade", "ethusdt@bookTicker")
    assert "ethusdt@bookTicker is added\nnothing was changed" in site.job("apply", "-c", other, "--dry-run")
    changed = site.config("btcusdt@trade")
    applied = site.job("apply", "-c", changed)
    assert "usdm:ethusdt@trade: drained" in applied
    assert "1 stream not touched" in applied
    assert pids(site.status()) == {"btcusdt@trade": before["btcusdt@trade"]}
    assert "after:  1 publisher (fixed)" in site.job("scale", "1")
    site.job("losses", "-c", changed)
    assert "everything was published" in site.job("down")
    refused = site.submit("status")
    until(lambda: site.state(refused) == "FAILED", "no relay runs any more")
    assert "no relay runs there" in site.said(refused)


def test_publishers_that_do_not_fit_are_demand_and_go_to_the_next_node(site: Site) -> None:
    if site.island is None:
        pytest.skip("a second node takes the right to make a network namespace (root)")
    two = site.config("btcusdt@trade", "ethusdt@trade")
    site.submit("run", "-c", two)
    until(lambda: is_live(site.status()), "two live streams")
    scaling = site.submit("scale", "2")
    until(lambda: "'CPU': 0.5" in site.ray("status"), "demand for half a CPU")
    (here,) = {one["node"] for one in site.status()["publishers"]}

    join = (
        RAY,
        "start",
        f"--address={site.address}",
        f"--node-ip-address={site.island.inside}",
        "--num-cpus=2",
    )
    inside = ("ip", "netns", "exec", site.island.name)
    with node(site.environ, site.folder / "node.log", *inside, *join, *NODE_OPTIONS):
        until(lambda: site.state(scaling) == "SUCCEEDED", "two publishers")
        assert "after:  2 publishers (fixed)" in site.said(scaling)
        far = [one for one in site.status()["publishers"] if one["node"] != here]
        assert [one["tcp_address"].rpartition(":")[0] for one in far] == [site.island.inside]
        until(
            lambda: any(one["rate_per_s"] > 0 and one["node"] != here for one in site.status()["publishers"]),
            "events go through the other node",
        )
        assert "everything was published" in site.job("down")
