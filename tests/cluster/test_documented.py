"""Every command of driver.py that a document shows, as it stands there, against one relay."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.local.simulator_process import SimulatedExchange
from relay.binance.streams import Venue
from tests.documents.test_documents import DRIVEN
from tests.support.driver_processes import END_S, ROOT, started

SHARDS = "shards: [btcusdt@trade, ethusdt@trade, btcusdt@bookTicker, ethusdt@bookTicker]\n"
NEXT = SHARDS.replace("]", ", btcusdt@aggTrade]")

# In the order in which they make sense, each with a word that its answer has to have.
WITHOUT_A_RELAY = {
    "check": "binance.usdm.btcusdt.trade",
    "check --live": "data on all 4 streams",
    "check -c next.yaml": "binance.usdm.btcusdt.aggTrade",
    "check -c k8s/shards.yaml": "10 streams",
    "completion bash": "complete ",
}
WITH_A_RELAY = {
    "status": "live",
    "status --json": '"state": "live"',
    "losses --since 24h": "",
    "audit --seconds 10": "0 lost",
    "scale 4": "after:  4 publishers (fixed)",
    "scale auto": "(auto",
    "drain stream btcusdt@trade": "btcusdt@trade",
    "resume btcusdt@trade": "btcusdt@trade",
    "drain publisher p0": "p0",
    "apply -c next.yaml --dry-run": "btcusdt@aggTrade",
    "apply -c next.yaml": "btcusdt@aggTrade",
    "apply -c shards.yaml": "btcusdt@aggTrade",
}
END = "down --deadline 20"
# What is shown of a cluster's container, which is the same with other paths, and what other tests run.
ELSEWHERE = {
    "down",
    "apply --dry-run -c /tmp/next.yaml",
    "audit -c /etc/sluice/config/shards.yaml --seconds 10",
    "run --simulate --embedded-nats",
    "run -c shards.yaml --watch",
}


pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a newcomer has, with fewer streams."""
    folder = tmp_path / "sluice"
    for name in ("actors", "cli", "relay", "simulator", "k8s"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "driver.py", folder)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "shards.yaml").write_text(SHARDS)
    (folder / "next.yaml").write_text(NEXT)
    return folder


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    with (
        SimulatedExchange(Venue.USDM, tmp_path / "exchange.log") as exchange,
        EmbeddedNats(tmp_path / "nats") as server,
    ):
        yield {"BINANCE_WS_URL": exchange.url, "NATS_URL": server.url}


def words(command: str) -> list[str]:
    return [".venv/bin/python", "driver.py", *shlex.split(command)]


def answer(command: str, checkout: Path, environ: dict[str, str]) -> str:
    more = {"XDG_STATE_HOME": str(checkout.parent / "state"), **environ}
    done = subprocess.run(
        words(command), cwd=checkout, env={**os.environ, **more}, timeout=END_S,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout}"
    return done.stdout


def watched(checkout: Path) -> str:
    """What `top` shows until it has drawn a stream that is live, and is left with Ctrl-C."""
    ours, theirs = pty.openpty()
    environ = {**os.environ, "XDG_STATE_HOME": str(checkout.parent / "state"), "TERM": "xterm"}
    with subprocess.Popen(
        words("top"), cwd=checkout, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as top:
        os.close(theirs)
        shown = b""
        while b"live" not in shown:
            shown += os.read(ours, 4096)
        top.send_signal(signal.SIGINT)
        assert top.wait(END_S) == 0
    os.close(ours)
    return shown.decode(errors="replace")


def test_every_documented_command_is_run() -> None:
    assert {*WITHOUT_A_RELAY, "run", "top", *WITH_A_RELAY, END, *ELSEWHERE} == set(DRIVEN)


def test_documented_commands_do_what_they_say(checkout: Path, environ: dict[str, str]) -> None:
    for command, word in WITHOUT_A_RELAY.items():
        assert word in answer(command, checkout, environ), command
    with started("run", home=checkout.parent, cwd=checkout, **environ) as run:
        run.read_until("4/4 streams live")
        assert "btcusdt@trade" in watched(checkout)
        for command, word in WITH_A_RELAY.items():
            assert word in answer(command, checkout, environ), command
        assert "everything was published" in answer(END, checkout, environ)
        assert run.end() == 0, run.lines
    assert run.left == set()
