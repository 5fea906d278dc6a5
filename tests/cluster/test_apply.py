"""A running relay is changed: by `apply`, and by a mounted ConfigMap that `run --watch` follows."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.driver_processes import Command, ask, started

THREE = ["btcusdt@trade", "ethusdt@bookTicker", "ethusdt@trade"]
OTHER = ["btcusdt@trade", "ethusdt@bookTicker", "btcusdt@aggTrade"]
KEPT = ["btcusdt@trade", "ethusdt@bookTicker"]
LIMITS = "nats: {stream: {max_age_s: 1h}}\n"
WRONG = "shards: [btcusdt@fundingRate@1s]\n"

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


def text(names: list[str], more: str = "") -> str:
    return f"shards: [{', '.join(names)}]\npublishers: {{max: 2}}\n{more}"


class ConfigMap:
    """A folder as the kubelet mounts one: the files are links through `..data`, which is swapped at once."""

    def __init__(self, folder: Path, content: str) -> None:
        self._folder = folder
        self._version = 0
        folder.mkdir()
        self.write(content)
        self.path = folder / "shards.yaml"
        self.path.symlink_to(Path("..data") / "shards.yaml")

    def write(self, content: str) -> None:
        self._version += 1
        version = self._folder / f"..{self._version}"
        version.mkdir()
        (version / "shards.yaml").write_text(content)
        fresh = self._folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self._folder / "..data")


@dataclass
class Relay:
    run: Command
    mounted: ConfigMap
    home: Path
    environ: dict[str, str]

    def ask(self, *args: str, code: int = 0) -> str:
        done = ask(*args, home=self.home, **self.environ)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        return json.loads(self.ask("status", "--json"))

    def file(self, name: str, content: str) -> str:
        path = self.home / name
        path.write_text(content)
        return str(path)

    def sockets(self) -> dict[str, tuple[int, ...]]:
        """What differs once a kept stream has lost its socket: on our side, and on the exchange's."""
        ours = {one["stream"]: one for one in self.status()["streams"]}
        url = self.environ["BINANCE_WS_URL"].replace("ws://", "http://")
        with urllib.request.urlopen(f"{url}/sim/sent", timeout=10) as answer:
            theirs = json.load(answer)["streams"]
        return {
            name: (
                *(
                    ours[name][figure]
                    for figure in ("epoch", "pid", "reconnects", "lost", "subscribed_at_ns")
                ),
                theirs[name]["unseen"],
                theirs[name]["subscribers"],
            )
            for name in KEPT
        }


@contextmanager
def a_relay(home: Path) -> Iterator[Relay]:
    mounted = ConfigMap(home / "config", text(THREE))
    arguments = ("-c", str(mounted.path), "--simulate", "--embedded-nats", "--watch")
    with started("run", *arguments, home=home) as run:
        exchange = re.search(r"ws://\S+", run.read_until("simulated exchange"))
        server = re.search(r"nats://127\.0\.0\.1:\d+", run.read_until("NATS: "))
        assert exchange is not None and server is not None
        run.read_until("3/3 streams live")
        yield Relay(run, mounted, home, {"NATS_URL": server[0], "BINANCE_WS_URL": exchange[0]})
        run.process.terminate()
        assert run.end() == 0, run.lines
    assert run.left == set()


def test_only_what_changed_is_touched_and_the_old_file_rolls_it_back(tmp_path: Path) -> None:
    with a_relay(tmp_path) as relay:
        before = relay.sockets()
        first, other = relay.file("first.yaml", text(THREE)), relay.file("other.yaml", text(OTHER))

        asked = relay.ask("apply", "-c", other, "--dry-run")
        assert "ethusdt@trade is removed\nbtcusdt@aggTrade is added\nnothing was changed" in asked
        wrong = relay.ask("apply", "-c", relay.file("wrong.yaml", WRONG), code=2)
        assert "shards[0]" in wrong

        applied = relay.ask("apply", "-c", other)
        assert re.search(
            r"usdm:btcusdt@aggTrade: subscribed at \S+Z, first data at \S+Z, [\d.]+ s later", applied
        )
        assert re.search(r"usdm:ethusdt@trade: drained; [1-9]\S* events acknowledged, none left", applied)
        assert "2 streams not touched" in applied
        assert re.search(r"before: 1 publisher \(auto\)\nafter:  1 publisher \(auto\)", applied)
        status = relay.status()
        assert {one["stream"] for one in status["streams"]} == set(OTHER)
        assert status["config_version"] == 2, "neither the dry run nor the wrong file changed anything"
        (ended,) = status["ended"]
        assert ended["received"] == ended["acknowledged"] > 0

        rolled_back = relay.ask("apply", "-c", first)
        assert "btcusdt@aggTrade is removed\nethusdt@trade is added" in rolled_back
        assert "applied" in relay.ask(
            "apply", "-c", relay.file("limits.yaml", text(THREE, LIMITS)), "--no-wait"
        )

        relay.mounted.write(text(OTHER))
        relay.run.read_until("has changed and is applied")
        relay.run.read_until("btcusdt@aggTrade: subscribed at")
        relay.run.read_until("2 streams not touched")
        version = relay.status()["config_version"]
        relay.mounted.write(WRONG)
        relay.run.read_until(r"has changed and is not applied: shards\[0\].*the relay goes on as before")
        os.truncate(relay.mounted.path, 0)
        relay.run.read_until("is not applied: the file is empty")
        relay.mounted.write(text(OTHER) + "# the same\n")
        relay.run.read_until("comes to the same relay")
        assert relay.status()["config_version"] == version

        assert relay.sockets() == before
        kept = relay.file("kept.yaml", f"shards: [{', '.join(KEPT)}]\n")
        assert "PASSED" in relay.ask("audit", "--stored", "-c", kept)
