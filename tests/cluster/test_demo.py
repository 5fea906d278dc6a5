"""`demo` and `run` as processes of their own: what they prove, how they end, and what they leave behind."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.support.driver_processes import ask, started

FEW_STREAMS = "shards: [btcusdt@trade, ethusdt@bookTicker]\npublishers: {max: 2}\n"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """For state and scratch files, with a space in its name."""
    path = tmp_path / "my home"
    path.mkdir()
    return path


@pytest.fixture
def few(home: Path) -> Path:
    path = home / "few.yaml"
    path.write_text(FEW_STREAMS)
    return path


def test_the_demo_relays_ten_streams_audits_them_and_leaves_nothing(home: Path) -> None:
    with started("demo", "--seconds", "6", "--flood", "ethusdt@trade", home=home) as demo:
        code = demo.end()
    assert code == 0, demo.lines
    assert re.match(
        r"PASSED: [\d,]+ sent, [\d,]+ stored, 0 lost, 0 duplicated, 0 out of order", demo.lines[-1]
    )
    assert any("flooding ethusdt@trade" in line for line in demo.lines)
    assert demo.seen
    assert demo.left == set()
    assert list(home.glob("sluice*")) == []


@pytest.mark.long
def test_the_demo_audits_what_it_relayed_when_it_is_interrupted(few: Path, home: Path) -> None:
    with started("demo", "--seconds", "600", "-c", str(few), home=home) as demo:
        demo.read_until(r"of 600 s  relaying.* [1-9]\S* msg/s")
        demo.process.send_signal(signal.SIGINT)
        code = demo.end()
    assert code == 0, demo.lines
    assert demo.lines[-1].startswith("PASSED: ")
    assert demo.left == set()


@pytest.mark.long
def test_a_run_is_joined_watched_scaled_and_ended(few: Path, home: Path) -> None:
    arguments = ("-c", str(few), "--simulate", "--embedded-nats")
    with started("run", *arguments, home=home) as run:
        exchange = re.search(r"ws://\S+", run.read_until("simulated exchange"))
        server = re.search(r"nats://127\.0\.0\.1:\d+", run.read_until("NATS: "))
        run.read_until("2/2 streams live")
        assert exchange is not None
        assert server is not None

        same = {"NATS_URL": server[0], "BINANCE_WS_URL": exchange[0]}
        with started("run", "-c", str(few), home=home, **same) as second:
            second.read_until("nothing changed: 2 streams")
            second.read_until("2/2 streams live")
            second.process.send_signal(signal.SIGINT)
            assert second.end() == 0
        assert "the actors are detached and go on" in second.lines[-1]

        status = ask("status", "--json", home=home)
        assert status.returncode == 0, status.stderr
        assert '"state": "live"' in status.stdout
        assert len(re.findall(r"^\S+ +live ", ask("status", home=home).stdout, re.MULTILINE)) == 2

        scaled = ask("scale", "2", home=home)
        assert scaled.returncode == 0, scaled.stderr
        assert "after:  2 publishers (fixed)" in scaled.stdout
        refused = ask("scale", "3", home=home)
        assert refused.returncode == 2
        assert refused.stderr == "driver.py: 3 publishers for 2 streams; take 1 to 2, or auto\n"

        audited = ask("audit", "--stored", "-c", str(few), home=home, NATS_URL=server[0])
        assert audited.returncode == 0, audited.stdout + audited.stderr

        run.process.send_signal(signal.SIGTERM)
        code = run.end()
    assert code == 0, run.lines
    assert "everything was published" in run.lines[-1]
    assert run.left == set()


def test_what_needs_a_relay_says_so_when_there_is_none(home: Path) -> None:
    for command in (["status"], ["top"], ["scale", "2"], ["down"]):
        done = ask(*command, home=home)
        assert done.returncode == 1
        assert done.stderr.startswith("driver.py: no Ray cluster runs here; start the relay with")
