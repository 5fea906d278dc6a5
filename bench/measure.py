"""Measures one load on one running system: offer it, wait for what is still on its way, and count."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from bench.loads import Load
from bench.measurement import Measurement, Usage, counts_of, total
from bench.procfs import cpu_s, memory
from bench.systems import Running
from bench.testbed import Testbed

# By then streams have moved from a failed publisher to another, so what is still missing will not arrive.
QUIET_S = 2.0
# What has not arrived by then counts as lost; the old design's socket can be a minute behind in a flood.
GIVE_UP_S = 8.0
_IDLE_LIMIT_S = 30.0
_SPELL_S = 0.25


def measure(testbed: Testbed, running: Running, load: Load, number: int) -> Measurement:
    testbed.wait_until_idle(_IDLE_LIMIT_S)
    testbed.consumer.ask("reset", timed=load.timed)
    stored = running.stored()
    used = _cpu_s(running.relay(), running.daemons(), testbed.apparatus())
    sent, seconds = _offer(testbed, load)
    on_time = _await(testbed, load, sent)
    groups = {group: list(names) for group, names in load.groups.items()}
    relay, daemons, apparatus = (
        _usage(pids, used) for pids in (running.relay(), running.daemons(), testbed.apparatus())
    )
    report = testbed.consumer.ask("report", groups=groups, spell_s=_SPELL_S if load.course else None)
    stored_now = running.stored()
    return Measurement(
        system=running.name,
        load=load.name,
        round=number,
        seconds=seconds,
        offered_per_s=load.rate_per_s,
        streams=counts_of(sent, on_time, report["streams"]),
        strange=report["strange"],
        latency_ms=report["latency_ms"],
        relay=relay,
        daemons=total(daemons.values()),
        apparatus=apparatus,
        stored=None if stored is None or stored_now is None else stored_now - stored,
        notes=running.notes(),
        spells=report["spells"],
    )


def _offer(testbed: Testbed, load: Load) -> tuple[dict[str, int], float]:
    """What was sent of each stream, and for how long."""
    before = testbed.sent()
    began = time.monotonic()
    if load.arrivals:
        testbed.replay(load.arrivals)
    else:
        testbed.offer(load.rates)
    time.sleep(load.seconds)
    testbed.offer({})
    seconds = time.monotonic() - began
    return {name: count - before[name] for name, count in testbed.sent().items()}, seconds


def _await(testbed: Testbed, load: Load, sent: Mapping[str, int]) -> dict[str, int]:
    """What had arrived on time; returns when all has arrived, nothing arrives any more, or GIVE_UP_S is
    over.
    """

    def complete(streams: Iterable[str]) -> bool:
        arrived = testbed.arrived()
        return all(arrived.get(name, 0) >= sent[name] for name in streams)

    testbed.wait(lambda: complete(sent), load.grace_s)
    on_time = testbed.arrived()
    testbed.wait(lambda: complete(load.awaited) or testbed.quiet_s() > QUIET_S, GIVE_UP_S - load.grace_s)
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
