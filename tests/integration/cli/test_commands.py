"""driver.py as operators and scripts use it: exit codes, one-line errors, output that programs can read."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nats
import pytest

import driver
from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.local.simulator_process import SimulatedExchange
from relay.binance.streams import Venue
from relay.losses.entry import LossEntry

ROOT = Path(driver.__file__).parent
DRIVER = [sys.executable, str(ROOT / "driver.py")]
TRADE_CONFIG = "shards: [btcusdt@trade, ethusdt@bookTicker]\n"


def run(
    *args: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DRIVER, *args], capture_output=True, text=True, timeout=60, cwd=cwd,
        env={**os.environ, **(environ or {})}, check=False,
    )  # fmt: skip


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my shards.yaml"
    path.write_text(TRADE_CONFIG)
    return path


def test_without_a_command_it_prints_help_and_fails_as_misused() -> None:
    done = run()
    assert done.returncode == 2
    assert "demo" in done.stderr


@pytest.mark.parametrize("command", driver.COMMANDS)
def test_every_command_has_help_with_the_exit_codes(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "exit codes" in done.stdout


WRONG_USAGE = {
    "unknown command": ["dance"],
    "publishers below one": ["scale", "0"],
    "publishers not a number": ["scale", "many"],
    "seconds below zero": ["demo", "--seconds", "-1"],
    "seconds without end": ["demo", "--seconds", "inf"],
    "port out of range": ["exchange", "--port", "70000"],
    "unknown option": ["status", "--yaml"],
    "no time": ["losses", "--since", "yesterday"],
}


@pytest.mark.parametrize("args", WRONG_USAGE.values(), ids=WRONG_USAGE)
def test_wrong_usage_ends_with_2_and_no_traceback(args: list[str]) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "run", "demo", "apply", "audit"])
def test_a_wrong_configuration_ends_with_2_before_anything_starts(command: str, tmp_path: Path) -> None:
    path = tmp_path / "shards.yaml"
    path.write_text("shards: [btcusdt@fundingRate@1s]\n")
    done = run(command, "-c", str(path))
    assert done.returncode == 2
    assert "shards[0]" in one_line(done.stderr)
    assert done.stdout == ""


def test_a_missing_file_is_named_with_a_remedy(tmp_path: Path) -> None:
    done = run("check", "-c", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "none.yaml" in one_line(done.stderr)
    assert "-c FILE" in done.stderr


def test_an_unknown_stream_to_flood_is_refused_with_the_known_ones(config: Path) -> None:
    done = run("demo", "-c", str(config), "--flood", "bnbusdt@trade")
    assert done.returncode == 2
    assert "btcusdt@trade, ethusdt@bookTicker" in one_line(done.stderr)


def test_check_lists_every_stream_with_its_url_and_subject(config: Path) -> None:
    done = run("check", "-c", str(config))
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == [
        "btcusdt@trade",
        "wss://fstream.binance.com/public/ws/btcusdt@trade",
        "binance.usdm.btcusdt.trade",
    ]


def test_the_shipped_configuration_is_found_from_any_directory(tmp_path: Path) -> None:
    done = run("check", cwd=tmp_path)
    assert done.returncode == 0
    assert "10 streams" in done.stdout


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    done = run("--debug", "check", "-c", str(tmp_path / "none.yaml"))
    assert "Traceback" in done.stderr


def test_a_reader_that_leaves_early_causes_no_complaint(config: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*DRIVER, "check", "-c", str(config)], stdout=write, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write)
    assert done.stderr == b""


def test_check_live_proves_data_on_every_stream(config: Path, tmp_path: Path) -> None:
    with SimulatedExchange(Venue.USDM, tmp_path / "log") as exchange:
        done = run("check", "--live", "-c", str(config), environ={"BINANCE_WS_URL": exchange.url})
    assert done.returncode == 0, done.stdout
    assert "data on all 2 streams" in done.stdout


def test_check_live_fails_for_a_stream_without_data(tmp_path: Path) -> None:
    path = tmp_path / "shards.yaml"
    path.write_text("shards: [btcusdt@trade, xyzusdt@trade]\n")
    with SimulatedExchange(Venue.USDM, tmp_path / "log") as exchange:
        done = run(
            "check", "--live", "--deadline", "2", "-c", str(path), environ={"BINANCE_WS_URL": exchange.url}
        )
    assert done.returncode == 1
    assert "xyzusdt@trade: connected, but no data came" in done.stdout
    assert "1 of 2 streams gave no data" in done.stdout


def test_check_live_names_an_exchange_that_is_not_there(config: Path) -> None:
    done = run("check", "--live", "-c", str(config), environ={"BINANCE_WS_URL": "ws://127.0.0.1:9"})
    assert done.returncode == 1
    assert "cannot connect to ws://127.0.0.1:9" in done.stdout


def test_an_audit_without_nats_says_so_in_one_line(config: Path) -> None:
    done = run("audit", "-c", str(config), environ={"NATS_URL": "nats://127.0.0.1:9"})
    assert done.returncode == 1
    assert "cannot read from NATS" in one_line(done.stderr)


async def store(server: EmbeddedNats, numbers: list[int]) -> None:
    client = await nats.connect(server.url, allow_reconnect=False)
    stream = client.jetstream()
    await stream.add_stream(name="SLUICE_usdm_btcusdt_trade", subjects=["binance.usdm.btcusdt.trade"])
    for number in numbers:
        identity = f"usdm:btcusdt@trade:{number}"
        body = (
            f'{{"stream":"btcusdt@trade","data":{{"t":{number}}},"timestamp":"2026-01-01T00:00:00.123456Z",'
            f'"message_id":"{identity}","source":"binance-websocket","version":"1.0"}}'
        )
        headers = {"Sluice-Epoch": "1", "Sluice-Seq": str(number), "Sluice-Recv-Ns": "1"}
        await stream.publish(
            "binance.usdm.btcusdt.trade", body.encode(), headers={"Nats-Msg-Id": identity, **headers}
        )
    await client.close()


@pytest.mark.parametrize(
    ("numbers", "code", "lost"), [([1, 2, 3], 0, 0), ([1, 2, 5], 1, 2)], ids=["complete", "gap"]
)
def test_an_audit_of_what_is_stored_ends_with_1_for_a_gap(
    config: Path, nats_server: EmbeddedNats, numbers: list[int], code: int, lost: int
) -> None:
    asyncio.run(store(nats_server, numbers))
    done = run("audit", "--stored", "--json", "-c", str(config), environ={"NATS_URL": nats_server.url})
    assert done.returncode == code, done.stderr
    (found,) = json.loads(done.stdout)["streams"]
    assert (found["stored"], found["lost"]) == (3, lost)


def test_an_audit_that_hears_nothing_does_not_pass(config: Path, nats_server: EmbeddedNats) -> None:
    done = run("audit", "--seconds", "0.2", "-c", str(config), environ={"NATS_URL": nats_server.url})
    assert done.returncode == 1


LOST = LossEntry(
    stream="usdm:btcusdt@trade", first_id=11, last_id=20, count=10, cause="disconnect", from_ns=10**18,
    to_ns=10**18 + 10**9, suspect=True, reason="REST did not answer",
)  # fmt: skip
REPAIRED = replace(LOST, first_id=13, count=8, healed=True, subject="binance.usdm.btcusdt.trade.repair")
DEPTH = replace(LOST, stream="usdm:ethusdt@depth", first_id=1, last_id=900, count=None, suspect=False)


async def store_ledger(server: EmbeddedNats, entries: list[LossEntry]) -> None:
    client = await nats.connect(server.url, allow_reconnect=False)
    stream = client.jetstream()
    await stream.add_stream(name="SLUICE_SIDE", subjects=["sluice.loss.>", "sluice.rejected.>"])
    for number, entry in enumerate(entries):
        await stream.publish(f"sluice.loss.usdm.x.{number}", entry.encode())
        await stream.publish("sluice.rejected.usdm.x.y", b"{}")
    await client.close()


def losses(config: Path, server: EmbeddedNats, *args: str) -> subprocess.CompletedProcess[str]:
    return run("losses", "-c", str(config), *args, environ={"NATS_URL": server.url})


def test_losses_shows_open_and_healed_gaps_with_totals(config: Path, nats_server: EmbeddedNats) -> None:
    asyncio.run(store_ledger(nats_server, [LOST, DEPTH, REPAIRED]))
    done = losses(config, nats_server)
    assert done.returncode == 0, done.stderr
    assert "2 gaps: 2 events lost and not healed, 2 of them unconfirmed, 1 gap whose" in done.stdout
    assert "not healed: REST did not answer" in done.stdout
    found = json.loads(losses(config, nats_server, "--json", "--stream", "btcusdt@trade").stdout)
    (gap,) = found["holes"]
    assert (gap["state"], gap["open"], gap["recovered"], gap["from"]) == (
        "partly",
        2,
        8,
        "2001-09-09T01:46:40.000Z",
    )
    assert found["totals"] == {"open": 2, "healed": 0, "repaired": 8, "uncounted": 0, "suspect": 2}


def test_an_empty_ledger_is_good_news_and_says_of_what(config: Path, nats_server: EmbeddedNats) -> None:
    asyncio.run(store_ledger(nats_server, [LOST]))
    done = losses(config, nats_server, "--since", "10m", "--stream", "btcusdt@trade")
    assert done.returncode == 0, done.stderr
    assert one_line(done.stdout).startswith("the ledger is empty: no event of btcusdt@trade since 20")


def test_a_ledger_that_was_never_made_cannot_be_read(config: Path, nats_server: EmbeddedNats) -> None:
    done = losses(config, nats_server)
    assert done.returncode == 1
    assert "SLUICE_SIDE" in one_line(done.stderr)


def test_with_core_delivery_losses_says_what_to_do_instead(config: Path) -> None:
    config.write_text(f"{TRADE_CONFIG}nats: {{delivery: core}}\n")
    done = run("losses", "-c", str(config))
    assert done.returncode == 2
    assert "subscribe to sluice.loss.>" in one_line(done.stderr)


def test_the_exchange_prints_its_url_and_ends_with_0_on_sigterm() -> None:
    with subprocess.Popen([*DRIVER, "exchange", "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert url.startswith("ws://127.0.0.1:")


def test_a_port_that_is_taken_is_a_wrong_usage(nats_server: EmbeddedNats) -> None:
    done = run("exchange", "--port", str(nats_server.port))
    assert done.returncode == 2
    assert "take another with --port" in one_line(done.stderr)
