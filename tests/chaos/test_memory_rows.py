"""Rows of the fault table in which memory is short."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from relay.model.actors import ActorId
from tests.chaos.processes import Seams
from tests.chaos.rig import FLOOD, STREAMS, Rig, publisher, stream
from tests.chaos.rows import Row
from tests.chaos.small_memory import SmallMemory, choose_first
from tests.support.polling import until

KEY = f"usdm:{FLOOD}"
WINDOW_BYTES = 4 * 1024 * 1024
# What to give a relay, as a multiple of what it takes when calm and of its streams' windows together.
ROOM = 4 / 3
ACTORS: tuple[ActorId, ...] = (*map(stream, STREAMS), publisher("p0"), publisher("p1"))


@pytest.fixture
def memory(row: Row) -> Iterator[SmallMemory]:
    """Outlives the rig, whose processes have to leave it."""
    with SmallMemory() as made:
        yield made


@pytest.fixture
def pod(memory: SmallMemory, rig: Rig) -> Rig:
    """All of the relay's actors below one limit."""
    for actor in ACTORS:
        rig.cluster.seams[actor] = Seams(memory=memory.path)
    queue = {"max_messages": 1_000_000, "max_bytes": WINDOW_BYTES}
    rig.start(config={"queue": queue})
    rig.flows(100)
    return rig


def spilled(rig: Rig) -> int:
    """Of the stream that spilled least."""
    return min(one.spilled for one in rig.stats().values())


def backlog(rig: Rig) -> int:
    return max(one.backlog_count for one in rig.stats().values())


def peak_until(memory: SmallMemory, met: Callable[[], bool]) -> int:
    seen = []

    def observed() -> bool:
        seen.append(memory.used_bytes)
        return met()

    until(observed, "the end of the backlog, or of room for it")
    return max(seen)


@pytest.mark.chaos(
    row=35,
    fault="all streams flood without NATS below a memory limit (cgroup)",
    figure="spilled before 80 %",
)
def test_row_35_memory_limit(pod: Rig, memory: SmallMemory, row: Row) -> None:
    calm_bytes = memory.used_bytes
    memory.limit(int((calm_bytes + len(STREAMS) * WINDOW_BYTES) * ROOM))
    pod.nats.kill()
    for name in STREAMS:
        pod.exchange.flood(name, 3_000.0)
    peaks = [peak_until(memory, lambda: spilled(pod) > 5_000)]
    row.injected("memory was full", True)
    for name in STREAMS:
        pod.exchange.calm(name)
    pod.nats.start()
    peaks.append(peak_until(memory, lambda: backlog(pod) < 100))
    row.measured("calm", calm_bytes / 1e6, "MB")
    for when, peak, most in zip(("until all spilled", "while it drained"), peaks, (80.0, 100.0), strict=True):
        row.measured(f"share of the limit {when}", 100 * peak / memory.limit_bytes, "%", most)
    assert not memory.kills
    pod.flows(100)
    pod.judge()


@pytest.mark.chaos(
    row=35,
    ci=True,
    fault="a stream actor killed for want of memory (cgroup)",
    figure="as any kill: new epoch within 5 s",
)
def test_row_35b_killed_for_want_of_memory(pod: Rig, memory: SmallMemory, row: Row) -> None:
    actor = stream(FLOOD)
    pod.nats.stop()
    pod.exchange.flood(FLOOD, 1_000.0)
    until(lambda: pod.stats()[KEY].backlog_count > 1_000, "a backlog")
    victim = pod.process(actor)
    choose_first(victim.pid)
    memory.limit(memory.used_bytes + 64 * 1024 * 1024)
    script = "from pathlib import Path; from tests.chaos.small_memory import devour; devour(Path({!r}))"
    hog = subprocess.Popen([sys.executable, "-c", script.format(str(memory.path))])
    try:
        until(lambda: victim.exitcode == -signal.SIGKILL, "the kernel kills the actor", 30.0, 0.001)
    finally:
        hog.kill()
        hog.wait()
    pod.note_accepted(actor.key)
    row.injected("killed by the kernel", memory.kills)
    began = time.monotonic()
    pod.exchange.calm(FLOOD)
    pod.nats.start()
    pod.flows(1, [KEY])
    row.measured("publishing again after", time.monotonic() - began, "s", 5.0)
    pod.flows(200)
    pod.judge()
