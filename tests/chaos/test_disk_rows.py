"""Rows of the fault table in which a journal's disk fails: it costs its own stream alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.processes import Seams
from tests.chaos.rig import FLOOD, STREAMS, Rig, stream
from tests.chaos.rows import Row
from tests.chaos.small_disk import free_bytes, small_disk
from tests.support.polling import until

KEY = f"usdm:{FLOOD}"


def with_journal_at(directory: Path) -> dict[str, object]:
    """One stream's journal apart from the others'."""
    shards = [{"stream": name} for name in STREAMS if name != FLOOD]
    return {"shards": [{"stream": FLOOD, "journal": {"directory": str(directory)}}, *shards]}


@pytest.mark.chaos(
    row=33,
    ci=True,
    fault="NATS away until the journal is at its limit",
    figure="bounded, reported, every gap in the ledger",
)
def test_row_33_journal_at_its_limit(rig: Rig, row: Row) -> None:
    rig.start(config={"journal": {"max_bytes": "6MiB"}, "exchange": {"heal": False}})
    rig.flows(100)
    rig.nats.stop()
    rig.exchange.flood(FLOOD, 4_000.0)
    until(lambda: rig.stats()[KEY].state == "blocked", "the journal is full", 40.0)
    row.injected("reading stopped", until(lambda: rig.problem("is full"), "it is reported", 10.0))
    until(lambda: not listened_to(rig, FLOOD), "the socket is given up", 30.0)
    time.sleep(2.0)
    assert rig.stats()[KEY].journal_bytes <= 6 * 1024 * 1024
    rig.exchange.calm(FLOOD)
    rig.nats.start()
    until(lambda: rig.stats()[KEY].state == "live", "the stream reads again")
    rig.flows(300)
    rig.judge()


@pytest.mark.chaos(
    row=33, ci=True, fault="the disk below one journal is full", figure="that stream alone waits, reported"
)
def test_row_33b_journal_disk_full(rig: Rig, row: Row, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "2m") as disk:
        rig.start(config={**with_journal_at(disk / "journal"), "queue": {"max_messages": 500}})
        rig.flows(100)
        others = rig.specs().keys() - {KEY}
        rig.nats.stop()
        rig.exchange.flood(FLOOD, 2_000.0)
        until(lambda: free_bytes(disk) < 70_000, "the disk is full")
        row.injected("the disk below the journal is full", True)
        began = time.monotonic()
        until(lambda: rig.problem("journal"), "it is reported", 20.0)
        row.measured("reported after", time.monotonic() - began, "s", 5.0)
        assert rig.stats()[KEY].state == "blocked"
        received = {key: rig.stats()[key].received for key in others}
        until(
            lambda: all(rig.stats()[key].received > received[key] + 100 for key in others), "others read on"
        )
        rig.exchange.calm(FLOOD)
        rig.nats.start()
        rig.flows(200)
        until(lambda: not rig.problem("journal"), "the trouble is over", 20.0)
        rig.judge()


@pytest.mark.chaos(
    row=33, fault="the journal's file takes no more writes", figure="the stream goes on in another"
)
def test_row_33c_journal_write_error(rig: Rig, row: Row) -> None:
    rig.cluster.seams[stream(FLOOD)] = Seams(file_size_bytes=300_000)
    rig.start(config={"queue": {"max_messages": 500}})
    rig.flows(100)
    rig.nats.stop()
    rig.exchange.flood(FLOOD, 1_000.0)
    until(lambda: rig.stats()[KEY].journal_bytes > 600_000, "the journal outgrew the limit of one file", 40.0)
    log = (rig.logs / "stream-usdm%3Abtcusdt%40trade.log").read_text()
    refused = log.count("refused a write") + log.count("accepted only part of a write")
    row.injected("the file system refused writes", refused)
    rig.exchange.calm(FLOOD)
    rig.nats.start()
    rig.flows(200)
    rig.judge()


@pytest.mark.chaos(
    row=33,
    ci=True,
    fault="a journal's tail cut off and a bit flipped, the actor killed",
    figure="counted exactly",
)
def test_row_33d_journal_damaged(rig: Rig, row: Row) -> None:
    rig.start(config={"queue": {"max_messages": 500}})
    rig.flows(100)
    actor = stream(FLOOD)
    rig.nats.kill()
    until(lambda: rig.stats()[KEY].spilled > 300, "events in the journal alone")
    rig.cluster.hold(actor)
    rig.kill(actor)
    before = set(rig.accepted.pop(KEY))
    damage(rig.journal_of(KEY), row)
    rig.note_accepted(KEY)
    lost = before - rig.accepted[KEY]
    row.injected("records of the journal were damaged", lost)
    rig.cluster.release(actor)
    rig.nats.start()
    rig.flows(300)
    rig.judge()
    row.measured("records lost by the damage", len(lost), "events")


def listened_to(rig: Rig, name: str) -> bool:
    return any(name in one["streams"] for one in rig.exchange.report()["connections"])


def damage(journal: Path, row: Row) -> None:
    """Flip one bit in the middle of the newest segment and cut off its last bytes."""
    newest = max((path for path in journal.glob("*.seg") if path.stat().st_size), key=lambda path: path.name)
    data = bytearray(newest.read_bytes())
    at = row.random.randrange(len(data) // 2, len(data) * 3 // 4)
    data[at] ^= 1 << row.random.randrange(8)
    newest.write_bytes(data[: len(data) - row.random.randrange(5, 40)])
