"""The relay as people run it, driver.py over a real Ray, between the two ends and the oracle of `rig.Bench`.

It is observed over its status page, so that a Ray that dies takes no test along.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from relay.adapters.local.process_tree import Process, children, descendants, is_running
from tests.chaos.rig import Bench, free_port, overlaid
from tests.support.driver_processes import NODE_OPTIONS, RAY, ROOT, Command, node, started
from tests.support.oracle import Findings
from tests.support.polling import until

FEW = ("btcusdt@trade", "btcusdt@aggTrade", "ethusdt@bookTicker")
RATE_PER_S = 50.0


@dataclass
class Head:
    """A Ray that somebody else started, with a token; drivers on it get `environ`."""

    address: str
    folder: Path
    environ: dict[str, str]

    @contextmanager
    def more(self, name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
        """Another node on the same machine."""
        command = (RAY, "start", f"--address={self.address}", "--node-ip-address=127.0.0.1", *options)
        with node(self.environ, self.folder / f"{name}.log", *command, *NODE_OPTIONS) as one:
            yield one


@contextmanager
def head(cpus: int, *more: str) -> Iterator[Head]:
    with ExitStack() as stack:
        # Unix sockets take short paths only.
        made = tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(made))
        (folder / "token").write_text(secrets.token_hex(32))
        address = f"127.0.0.1:{free_port()}"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environ |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_TMPDIR": str(folder),
            # Nobody waits for what a failed test left on a node.
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
        }
        port = address.rpartition(":")[2]
        command = (RAY, "start", "--head", "--node-ip-address=127.0.0.1", f"--port={port}")
        options = (f"--num-cpus={cpus}", "--include-dashboard=false", *more, *NODE_OPTIONS)
        log = folder / "head.log"
        stack.enter_context(node(environ, log, *command, *options))
        join = [sys.executable, "-c", f"import ray; ray.init(address={address!r}, log_to_driver=False)"]

        def joined() -> bool:
            return not subprocess.run(join, env=environ, cwd="/", capture_output=True, check=False).returncode

        until(joined, f"a Ray that can be joined: {log.read_text()}")
        yield Head(address, folder, {**environ, "RAY_ADDRESS": address})


class RelayOnRay(Bench):
    """`run` starts a driver with a Ray of its own, or on a head that was there before."""

    def prepare(
        self,
        streams: Sequence[str] = FEW,
        *,
        rate_per_s: float = RATE_PER_S,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Both ends, and the file that drivers read."""
        self.open_ends(streams, rate_per_s)
        self._page = free_port()
        base = {"publishers": {"min": 1, "max": 2}, "page": {"listen": f"127.0.0.1:{self._page}"}}
        self.configure(streams, overlaid(base, config or {}))

    def configure(self, streams: Sequence[str], over: Mapping[str, Any]) -> Any:
        found = super().configure(streams, over)
        self.file = self.directory / "shards.yaml"
        # JSON is YAML.
        self.file.write_text(json.dumps(self.written))
        return found

    def run(self, on: Head | None = None, **environ: str) -> Command:
        """A driver, once it has seen all streams deliver."""
        command = self.driver("run", on=on, **environ)
        command.read_until(f"{len(self.specs())}/{len(self.specs())} streams live")
        return command

    def driver(self, what: str, *arguments: str, on: Head | None = None, **environ: str) -> Command:
        # A Ray that somebody started by hand has left its address below the usual folder.
        more = {"RAY_TMPDIR": str(self.sockets), **(on.environ if on else {}), **environ}
        files = () if what == "down" else ("-c", str(self.file))
        return self._stack.enter_context(started(what, *files, *arguments, home=self.directory, **more))

    def leave(self, head: Head) -> None:
        """Take the relay down, so that the head can have another one."""
        down = self.driver("down", on=head)
        assert down.end() == 0, down.lines

    # Looking

    def status(self) -> dict[str, Any] | None:
        """As `status --json` shows it; None while nobody serves the page."""
        with suppress(OSError, ValueError, HTTPException):
            url = f"http://127.0.0.1:{self._page}/status.json"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return dict(json.load(answer))
        return None

    def streams(self) -> dict[str, dict[str, Any]]:
        status = self.status()
        return {f"{one['venue']}:{one['stream']}": one for one in status["streams"]} if status else {}

    def pids(self) -> dict[str, int]:
        """Of streams by their keys, of publishers by their names, and of the controller."""
        status = self.status()
        assert status is not None, "nobody serves the page"
        publishers = {one["publisher"]: one["pid"] for one in status["publishers"]}
        streams = {key: one["pid"] for key, one in self.streams().items()}
        return {**streams, **publishers, "controller": status["controller_pid"]}

    def stored(self) -> dict[str, int]:
        """How many messages JetStream has of each stream, whatever Ray does."""
        names = {key: spec.jetstream_name for key, spec in self.specs().items()}
        return {key: self.api(f"STREAM.INFO.{name}")["state"]["messages"] for key, name in names.items()}

    def flows(self, events: int, keys: Collection[str] | None = None, within_s: float = 60.0) -> float:
        """Until JetStream has this many more of each stream; returns how long it took."""
        began, before = time.monotonic(), self.stored()
        wanted = set(keys or before)

        def met() -> bool:
            now = self.stored()
            return all(now[key] >= before[key] + events for key in wanted)

        until(met, f"{events} events more of each stream", within_s, 0.1)
        return time.monotonic() - began

    def listening(self) -> dict[str, int]:
        """How many sockets each stream has at the exchange."""
        open_ones = [name for one in self.exchange.report()["connections"] for name in one["streams"]]
        return {spec.name: open_ones.count(spec.name) for spec in self.specs().values()}

    def processes(self, command: Command) -> frozenset[Process]:
        """All below a driver, as long as it runs."""
        return self.below(command.process)

    def below(self, process: subprocess.Popen[Any]) -> frozenset[Process]:
        return descendants(children(process.pid))

    def note_all_accepted(self) -> None:
        """Call when all actors have ended, before a next one starts."""
        for key in self.specs():
            self.note_accepted(key)

    # Judging

    def settle(self, within_s: float = 90.0) -> dict[str, bool]:
        """Stop the traffic and wait until nothing is on its way; whose counts balance."""
        self.exchange.stop_traffic(20.0)
        seen: list[dict[str, int]] = []

        def met() -> bool:
            found = self.streams()
            received = {key: one["received"] for key, one in found.items()}
            calm = found.keys() == self.specs().keys() and not any(
                one["backlog"] or not one["linked"] for one in found.values()
            )
            seen[:] = [*seen, received][-3:] if calm else []
            return len(seen) == 3 and seen.count(received) == 3

        until(met, "a settled relay", within_s, 1.0)
        return {key: one["balanced"] for key, one in self.streams().items()}

    def judge(self, logs: Path | None = None) -> Findings:
        """`logs` is the folder of the session whose actors are to have no unhandled exception."""
        balanced = self.settle()
        if logs is not None:
            self.logs.mkdir(exist_ok=True)
            for path in logs.glob("worker-*.err"):
                shutil.copy(path, self.logs / f"{path.stem}.log")
        findings = self.read_back(balanced)
        assert not findings.violations, "\n".join(findings.violations)
        assert findings.stored, "nothing was stored, so nothing was shown"
        self.row.measured("events", findings.wired, "")
        if findings.missing:
            self.row.measured("missing and announced", findings.missing, "")
        return findings

    def own_logs(self) -> Path:
        """Of the Ray that the newest driver of this test started."""
        found = (self.directory / "state" / "sluice").glob("cluster-*.json")
        newest = max(found, key=lambda path: path.stat().st_mtime)
        return Path(json.loads(newest.read_text())["run_directory"]) / "ray" / "session_latest" / "logs"


def ended(processes: Collection[Process]) -> bool:
    return not any(is_running(process) for process in processes)
