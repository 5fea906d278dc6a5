"""One load on one running system: offer it, wait for what is still under way, and draw up the books."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from bench.loads import Load
from bench.measurement import Measurement, Usage, books_of, total
from bench.procfs import cpu_s, memory
from bench.stage import Stage
from bench.systems import Running

# A publisher's successor has taken over by then, so what is still missing will not come.
QUIET_S = 2.0
# What has not come by then counts as lost; the old design's socket can be a minute behind in a flood.
PATIENCE_S = 8.0
_SETTLE_S = 30.0
_SPELL_S = 0.25


def measure(stage: Stage, running: Running, load: Load, number: int) -> Measurement:
    stage.settle(_SETTLE_S)
    stage.consumer.ask("reset", timed=load.timed)
    stored = running.stored()
    used = _cpu_s(running.relay(), running.daemons(), stage.apparatus())
    sent, seconds = _offer(stage, load)
    on_time = _await(stage, load, sent)
    groups = {group: list(names) for group, names in load.groups.items()}
    relay, daemons, apparatus = (
        _usage(pids, used) for pids in (running.relay(), running.daemons(), stage.apparatus())
    )
    report = stage.consumer.ask("report", groups=groups, spell_s=_SPELL_S if load.course else None)
    stored_now = running.stored()
    return Measurement(
        system=running.name,
        load=load.name,
        round=number,
        seconds=seconds,
        offered_per_s=load.rate_per_s,
        streams=books_of(sent, on_time, report["streams"]),
        strange=report["strange"],
        latency_ms=report["latency_ms"],
        relay=relay,
        daemons=total(daemons.values()),
        apparatus=apparatus,
        stored=None if stored is None or stored_now is None else stored_now - stored,
        notes=running.notes(),
        spells=report["spells"],
    )


def _offer(stage: Stage, load: Load) -> tuple[dict[str, int], float]:
    """What was sent of each stream, and for how long."""
    before = stage.sent()
    began = time.monotonic()
    if load.arrivals:
        stage.replay(load.arrivals)
    else:
        stage.offer(load.rates)
    time.sleep(load.seconds)
    stage.offer({})
    seconds = time.monotonic() - began
    return {name: count - before[name] for name, count in stage.sent().items()}, seconds


def _await(stage: Stage, load: Load, sent: Mapping[str, int]) -> dict[str, int]:
    """What had arrived on time; returns when all has, when nothing comes any more, or when patience ends."""

    def complete(streams: Iterable[str]) -> bool:
        arrived = stage.arrived()
        return all(arrived.get(name, 0) >= sent[name] for name in streams)

    stage.wait(lambda: complete(sent), load.grace_s)
    on_time = stage.arrived()
    stage.wait(lambda: complete(load.awaited) or stage.quiet_s() > QUIET_S, PATIENCE_S - load.grace_s)
    return on_time


def _cpu_s(*groups: Mapping[str, int]) -> dict[int, float]:
    return {pid: cpu_s(pid) for pids in groups for pid in pids.values()}


def _usage(pids: Mapping[str, int], before: Mapping[int, float]) -> dict[str, Usage]:
    """Of each process since `before`; one that started later is counted from its start."""
    found = {}
    for name, pid in pids.items():
        held = memory(pid)
        found[name] = Usage(round(cpu_s(pid) - before.get(pid, 0.0), 3), held.rss_bytes, held.pss_bytes)
    return found
