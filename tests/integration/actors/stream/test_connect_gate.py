"""A stream's turn to connect: the file that the streams of a node share, and what is left without it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.stream.connect_gate import ConnectGate, Permit
from relay.binance.connect_budget import WINDOW_S, AttemptOutcome, BudgetClaim
from relay.binance.connect_budget_file import ConnectBudgetFile
from relay.errors import FeedError
from tests.support.paths import ROOT


def claim(name: str = "usdm:a@trade", *, total: int = 20, streams: int = 10) -> BudgetClaim:
    return BudgetClaim(name, total, streams, shared=False)


def gate(directory: Path, name: str = "usdm:a@trade", **of: int) -> ConnectGate:
    return ConnectGate(ConnectBudgetFile(directory), claim(name, **of))


def take_all(directory: Path, total: int, taken: multiprocessing.Queue) -> None:
    """As a stream's process: attempts until the budget has no more."""
    granted = 0
    while True:
        try:
            with ConnectBudgetFile(directory).opened() as log:
                wait_s = log.try_acquire(claim(total=total), time.monotonic(), low_priority=False)
                log.record_outcome(log.granted, AttemptOutcome.OPENED)
        except BlockingIOError:
            continue
        if wait_s:
            break
        granted += 1
    taken.put(granted)


def test_processes_together_get_the_budget_and_not_one_attempt_more(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    taken = context.Queue()
    processes = [context.Process(target=take_all, args=(tmp_path, 60, taken)) for _ in range(4)]
    for process in processes:
        process.start()
    counts = [taken.get(timeout=20) for _ in processes]
    for process in processes:
        process.join(20)
    assert sum(counts) == 60


def test_a_refusal_with_a_time_holds_up_every_stream_of_the_node(tmp_path: Path) -> None:
    async def case() -> None:
        first = gate(tmp_path)
        await first.record_outcome(await first.admit(low_priority=False), FeedError("slow down", 60.0))
        with pytest.raises(FeedError, match="no room"):
            await gate(tmp_path, "usdm:b@trade").admit(low_priority=True)

    asyncio.run(case())


def test_an_attempt_that_has_to_wait_comes_as_soon_as_there_is_room(tmp_path: Path) -> None:
    async def case() -> None:
        first, second = (gate(tmp_path, name, total=5) for name in ("usdm:a@trade", "usdm:b@trade"))
        permit = await first.admit(low_priority=False)
        waiting = asyncio.create_task(second.admit(low_priority=False))
        await asyncio.sleep(0)
        assert not waiting.done()
        await first.record_outcome(permit, None)
        async with asyncio.timeout(5):
            assert (await waiting).number == 2

    asyncio.run(case())


HOLD = """
import sys, time
from pathlib import Path
from relay.binance.connect_budget_file import ConnectBudgetFile
with ConnectBudgetFile(Path(sys.argv[1])).opened():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_stopped_process_with_the_lock_leaves_each_stream_its_own_part(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGSTOP)

    async def alone() -> None:
        one = gate(tmp_path)
        assert [await one.admit(low_priority=False) for _ in range(2)] == [Permit(None), Permit(None)]
        third = asyncio.create_task(one.admit(low_priority=False))
        with pytest.raises(FeedError, match="no room"):
            await gate(tmp_path, "usdm:b@trade").admit(low_priority=True)
        assert not third.done(), "a tenth of the budget is used up"
        third.cancel()
        await one.record_outcome(Permit(None), None)
        one.report(time.monotonic())

    async def together() -> None:
        assert (await gate(tmp_path).admit(low_priority=False)).number == 1

    try:
        asyncio.run(alone())
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    asyncio.run(together())


def test_a_folder_that_is_not_there_leaves_the_stream_its_own_part(tmp_path: Path) -> None:
    async def case() -> None:
        assert await gate(tmp_path / "missing").admit(low_priority=False) == Permit(None)

    asyncio.run(case())


def test_streams_that_report_count_for_their_node(tmp_path: Path) -> None:
    for number in range(4):
        of = BudgetClaim(f"usdm:s{number}@trade", 100, 8, shared=True)
        ConnectGate(ConnectBudgetFile(tmp_path), of).report(time.monotonic())
    with ConnectBudgetFile(tmp_path).opened() as log:
        assert log.limit(of) == 50


def test_an_exception_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    ledger = ConnectBudgetFile(tmp_path)
    with pytest.raises(ZeroDivisionError), ledger.opened() as log:
        log.close(time.monotonic() + WINDOW_S, time.monotonic())
        raise ZeroDivisionError
    with ledger.opened() as log:
        assert log.try_acquire(claim(), time.monotonic(), low_priority=False) == 0.0
