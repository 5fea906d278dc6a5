"""Rows of the fault table in which the configuration changes while the relay runs, or is hostile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import driver
from relay.config import Config, load_config
from relay.errors import ConfigError
from tests.chaos.proxy import FaultProxy
from tests.chaos.rig import FLOOD, STREAMS, Rig
from tests.chaos.rows import Row
from tests.support.polling import until

DRIVER = Path(driver.__file__)
MIB = 1024 * 1024
LIMIT_S, LIMIT_RSS_BYTES = 2.0, 200 * MIB

# Loaded by the interpreter before anything else: writes down every socket that a process makes.
WATCH = """
import os, sys
def hook(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        with open(os.environ["SOCKETS_SEEN"], "a") as file:
            file.write(event + "\\n")
sys.addaudithook(hook)
"""

FINE = "shards: [btcusdt@trade]\n"


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines) + f"\nshards: *a{levels - 1}\n"


HOSTILE = {
    "alias bomb": bomb(10),
    "an alias of itself": "shards: &a [*a]\n",
    "merge keys": "base: &b {stream: btcusdt@trade}\nshards: [{<<: *b}]\n",
    "a Python tag": "shards: !!python/object/apply:os.system ['touch /tmp/pwned']\n",
    "a tag of our own": "shards: [!stream btcusdt@trade]\n",
    "a binary tag": "shards: !!binary aGVsbG8=\n",
    "10 MB": FINE + "# " + "x" * 10 * MIB,
    "10 MB of streams": "shards: [" + ", ".join(["btcusdt@trade"] * 700_000) + "]\n",
    "just below 1 MiB of values": "shards: [" + "a," * 520_000 + "]\n",
    "just below 1 MiB of brackets": "shards: " + "[" * 1_000_000,
    "just below 1 MiB of braces": "{" * 1_000_000,
    "a key twice": FINE + FINE,
    "a nested key twice": "nats: {servers: [], servers: []}\n" + FINE,
    "two documents": FINE + "---\n" + FINE,
    "a directive": "%YAML 1.1\n---\n" + FINE,
    "a journal outside": FINE + "journal: {directory: ../../etc}\n",
    "a journal outside of its folder": FINE + "journal: {directory: /var/lib/../../etc}\n",
    "a stream that climbs": "shards: ['../../etc/passwd@trade']\n",
    "a stream that climbs in its channel": "shards: ['btcusdt@../../trade']\n",
    "a subject of JetStream's API": FINE + "nats: {subject: '$JS.API.STREAM.DELETE.x'}\n",
    "a subject for everything": FINE + "nats: {subject: '$JS.>'}\n",
    "a subject of the ledger": FINE + "nats: {subject: sluice.loss.x}\n",
    "a subject with a line end": FINE + 'nats: {subject: "a.b\\r\\nPUB x 1"}\n',
    "a public exchange in the clear": FINE + "exchange: {url: 'ws://example.com'}\n",
    "a file for an exchange": FINE + "exchange: {url: 'file:///etc/passwd'}\n",
    "an exchange with a login": FINE + "exchange: {url: 'wss://a:b@example.com'}\n",
    "an exchange with a header": FINE + 'exchange: {url: "wss://example.com/\\r\\nX: y"}\n',
    "an exchange on port 99999": FINE + "exchange: {url: 'wss://example.com:99999'}\n",
    "a server with a password": FINE + "nats: {servers: ['nats://a:b@127.0.0.1']}\n",
    "a reference without an end": FINE + "nats: {servers: ['${NATS']}\n",
    "a number without an end": FINE + "queue: {max_messages: 1" + "0" * 4000 + "}\n",
    "not a number": FINE + "queue: {max_messages: .nan}\n",
    "an unknown key": FINE + "__class__: {}\n",
    "no streams": "shards: []\n",
    "nothing": "",
}
RAW = {
    "bytes of no text": b"\xff\xfe\x00\x01" * 1000,
    "NUL bytes": b"shards: [btcusdt@trade]\n\x00\x00",
    "half a character": FINE.encode() + b"# \xe2\x82",
}


@dataclass
class Ended:
    code: int
    text: str
    seconds: float
    rss_bytes: int


def drive(folder: Path, *arguments: str) -> Ended:
    """driver.py in an interpreter that writes down its sockets."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("NATS_", "BINANCE_"))
    }
    environ |= {"PYTHONPATH": str(folder), "SOCKETS_SEEN": str(folder / "sockets")}
    began = time.monotonic()
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), *arguments], stdout=said, stderr=said, env=environ
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read()
    return Ended(process.returncode, text, time.monotonic() - began, usage.ru_maxrss * 1024)


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    return tmp_path


@pytest.mark.chaos(row=39, fault="a hostile shards.yaml", figure="exit code 2 within 2 s, 200 MB, no socket")
def test_row_39_hostile_file(watched: Path, row: Row) -> None:
    path = watched / "shards.yaml"
    ends = []
    for name, content in {**{name: text.encode() for name, text in HOSTILE.items()}, **RAW}.items():
        path.write_bytes(content)
        end = drive(watched, "check", "-c", str(path))
        assert (end.code, len(end.text.splitlines())) == (2, 1), f"{name}: {end}"
        assert end.text.startswith("driver.py: ") and len(end.text) < 500, f"{name}: {end.text[:1000]}"
        ends.append(end)
    for command in ("run", "apply", "demo", "audit", "losses"):
        path.write_text(HOSTILE["alias bomb"])
        ends.append(drive(watched, command, "-c", str(path)))
        assert ends[-1].code == 2, f"{command}: {ends[-1]}"
    row.injected("files were refused", len(ends))
    assert not (watched / "sockets").exists()
    peak = max(end.rss_bytes for end in ends)
    assert peak < LIMIT_RSS_BYTES
    row.judged = True
    row.measured("files", len(ends), "")
    row.measured("slowest", max(end.seconds for end in ends), "s", LIMIT_S)
    row.measured("most memory", peak / 1e6, "MB", 200.0)


def test_the_watch_sees_sockets(watched: Path) -> None:
    """Else nothing was shown above."""
    path = watched / "shards.yaml"
    path.write_text(FINE + "nats: {servers: ['nats://127.0.0.1:1']}\n")
    assert drive(watched, "losses", "-c", str(path)).code == 1
    assert "socket.connect" in (watched / "sockets").read_text()


KEYS = st.sampled_from(
    ["shards", "stream", "exchange", "url", "nats", "servers", "subject", "journal", "directory", "queue"]
)
SCALARS = st.sampled_from(
    [
        "btcusdt@trade",
        "*a",
        "&a x",
        "!!python/name:os.system",
        "../..",
        "$JS.>",
        "ws://[::1",
        "${HOME}",
        "~",
        "1e999",
    ]
) | st.text(max_size=20).map(json.dumps)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda found: "[" + ", ".join(found) + "]")
        | st.lists(st.tuples(KEYS, inner), max_size=4).map(
            lambda found: "{" + ", ".join(f"{key}: {value}" for key, value in found) + "}"
        )
    ),
    max_leaves=12,
)


@pytest.mark.chaos(row=39, fault="files that nobody thought of", figure="read or refused, each within 2 s")
def test_row_39b_generated_files(tmp_path: Path, row: Row) -> None:
    path = tmp_path / "shards.yaml"
    took: list[float] = []
    refused: list[str] = []

    @settings(max_examples=2000 if row.long else 400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(KEYS, TREES), max_size=5))
    def read(found: list[tuple[str, str]]) -> None:
        path.write_text("".join(f"{key}: {value}\n" for key, value in found), encoding="utf-8")
        began = time.monotonic()
        try:
            assert isinstance(load_config(path, {}), Config)
        except ConfigError as error:
            refused.append(str(error))
        took.append(time.monotonic() - began)

    read()
    row.injected("files were refused", len(refused) > len(took) / 2)
    assert all(len(text) < 500 and text.isprintable() for text in refused)
    row.judged = True
    row.measured("files", len(took), "")
    row.measured("slowest", max(took), "s", LIMIT_S)


ADDED = "btcusdt@bookTicker"
RETARGETED = "ethusdt@bookTicker"


def sockets(rig: Rig, names: Collection[str]) -> dict[str, tuple[object, ...]]:
    """What differs once one of these streams has lost its process or its socket: ours, and the exchange's."""
    ours, theirs = rig.stats(), rig.exchange.sent_report()
    return {
        name: (
            *(
                getattr(ours[f"usdm:{name}"], what)
                for what in ("pid", "epoch", "reconnects", "rotations", "lost")
            ),
            *(theirs[name][what] for what in ("unseen", "subscribers")),
        )
        for name in names
    }


def change(rig: Rig, streams: Sequence[object], **over: object) -> list[str]:
    """Apply another configuration to the running relay, and wait until it is in force."""
    config = rig.configure(streams, {"publishers": {"max": len(streams), "scale": 2}, **over})
    applied = rig.controller.apply(config)
    until(
        lambda: (
            (now := rig.status()) is not None
            and not now.pending
            and not now.unreachable
            and {f"usdm:{one.stream}" for one in now.streams} == rig.specs().keys()
        ),
        f"in force: {applied}",
    )
    return list(applied)


@pytest.mark.chaos(
    row=38,
    ci=True,
    fault="streams removed, added, retargeted, then NATS retargeted, under load",
    figure="0 reconnects of the others; the removed one drains first",
)
def test_row_38_live_change(rig: Rig, row: Row) -> None:
    rig.start()
    untouched = [name for name in STREAMS if name not in (FLOOD, RETARGETED)]
    rig.flows(100)
    before = sockets(rig, untouched)
    with (
        FaultProxy(("127.0.0.1", rig.exchange.port)) as exchange,
        FaultProxy(("127.0.0.1", rig.nats.port)) as nats,
    ):
        rig.exchange.flood(FLOOD, 2_000.0)
        until(lambda: rig.stats()[f"usdm:{FLOOD}"].backlog_count > 20, "events are on their way")
        elsewhere = {"stream": RETARGETED, "exchange": {"url": f"ws://127.0.0.1:{exchange.port}"}}
        began = time.monotonic()
        applied = change(rig, [*untouched, elsewhere, ADDED])
        row.measured("in force after", time.monotonic() - began, "s")
        for what in (f"{FLOOD} is removed", f"{ADDED} is added", f"{RETARGETED}: url"):
            row.injected(what, any(what in one for one in applied))
        ended = next(one for one in rig.controller.status().ended if one.stream == FLOOD)
        assert (ended.backlog_count, ended.acknowledged) == (0, ended.received)
        rig.exchange.calm(FLOOD)
        assert len(exchange.accepted_at) == 1
        rig.flows(100)

        # Back again, so that what was missed meanwhile has to be announced.
        change(rig, [*STREAMS, ADDED])
        rig.flows(100)
        began = time.monotonic()
        change(rig, [*STREAMS, ADDED], nats={"servers": [f"nats://127.0.0.1:{nats.port}"]})
        until(
            lambda: nats.connections == 2 and set(rig.publishers()) == {"p2", "p3"},
            "publishers reach NATS by the new address",
        )
        row.measured("NATS by the new address after", time.monotonic() - began, "s")
        rig.flows(100)
        assert sockets(rig, untouched) == before
        rig.judge()
