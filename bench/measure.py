"""One load on one running system: offer it, wait for what is still under way, and draw up the books."""

from __future__ import annotations

import time
from collections.abc import Iterable

from bench.loads import Load
from bench.measurement import Measurement, Usage, books_of
from bench.procfs import cpu_s, memory
from bench.stage import Stage
from bench.systems import Running

ON_TIME_S = 2.0
# What has not come by then counts as lost; the old design's socket can be a minute behind in a flood.
PATIENCE_S = 10.0
_SETTLE_S = 30.0
_SPELL_S = 0.25


def measure(stage: Stage, running: Running, load: Load, number: int) -> Measurement:
    stage.settle(_SETTLE_S)
    stage.consumer.ask("reset", timed=load.timed)
    relay, daemons = running.relay(), running.daemons()
    before, stored_before, cpu_before = (
        stage.sent(),
        running.stored(),
        _cpu((*relay.values(), *daemons.values())),
    )
    began = time.monotonic()
    stage.offer(load.rates)
    time.sleep(load.seconds)
    stage.offer({})
    seconds = time.monotonic() - began
    sent = {name: count - before[name] for name, count in stage.sent().items()}
    on_time = _await(stage, load, sent)
    cpu_after = _cpu(cpu_before)
    used = {pid: cpu_after[pid] - cpu_before[pid] for pid in cpu_before}
    groups = {group: list(names) for group, names in load.groups.items()}
    report = stage.consumer.ask("report", groups=groups, spell_s=_SPELL_S)
    stored_after = running.stored()
    return Measurement(
        system=running.name,
        load=load.name,
        round=number,
        seconds=seconds,
        offered_per_s=load.rate_per_s,
        streams=books_of(sent, on_time, report["streams"]),
        strange=report["strange"],
        latency_ms=report["latency_ms"],
        relay={name: _usage(pid, used) for name, pid in relay.items()},
        daemons={name: _usage(pid, used) for name, pid in daemons.items()},
        stored=None if stored_before is None or stored_after is None else stored_after - stored_before,
        notes=running.notes(),
        spells=report["spells"],
    )


def _await(stage: Stage, load: Load, sent: dict[str, int]) -> dict[str, int]:
    """What had arrived on time; returns when all has, or when patience ends."""

    def complete() -> bool:
        arrived = stage.arrived()
        return all(arrived.get(name, 0) >= sent[name] for name in load.awaited)

    def over() -> bool:
        return complete() or bool(stage.consumer.ask("count")["quiet_s"] > ON_TIME_S)

    stage.wait(complete, ON_TIME_S)
    on_time = stage.arrived()
    stage.wait(over, PATIENCE_S - ON_TIME_S)
    return on_time


def _cpu(pids: Iterable[int]) -> dict[int, float]:
    return {pid: cpu_s(pid) for pid in pids}


def _usage(pid: int, used: dict[int, float]) -> Usage:
    held = memory(pid)
    return Usage(round(used[pid], 3), held.rss_bytes, held.pss_bytes)
