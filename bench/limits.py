"""`python -m bench.limits`: what Sluice costs when idle, with many streams or publishers, and over a long
time.

This is not part of the comparison: no other system takes part, and each question needs a relay of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.hops import hops
from bench.loads import FLOOD_RATE_PER_S, STREAMS, Load
from bench.machine import this_machine
from bench.measure import measure
from bench.measurement import Measurement
from bench.procfs import cpu_s, memory
from bench.sluice import RunningSluice, running_sluice
from bench.testbed import Testbed, start_testbed
from relay.errors import SluiceError

_RESULTS = Path(__file__).resolve().parent / "results"
_START_LIMIT_S = 240.0
_REST_S = 5.0
# Ray reserves cores for each actor; here all of them share two.
_ROOM = {"resources": {"stream_cpus": 0, "publisher_cpus": 0}}
_JETSTREAM, _CORE = "jetstream", "core"
Finding = dict[str, Any]


@contextmanager
def relay(
    directory: Path, delivery: str = _JETSTREAM, streams: tuple[str, ...] = STREAMS, **more: Any
) -> Iterator[tuple[Testbed, RunningSluice]]:
    """A testbed and a relay on it that has delivered something on every stream and is idle."""
    with (
        start_testbed(directory, streams) as testbed,
        running_sluice(testbed, f"Sluice, {delivery}", delivery, **_ROOM, **more) as running,
    ):
        testbed.await_first_data(_START_LIMIT_S, running.check)
        testbed.offer({})
        time.sleep(_REST_S)
        yield testbed, running


def start(directory: Path) -> Iterator[Finding]:
    """From `driver.py run` until every stream has delivered, five times."""
    for number in range(5):
        with start_testbed(directory / str(number)) as testbed:
            began = time.monotonic()
            with running_sluice(testbed, "Sluice", _JETSTREAM) as running:
                testbed.await_first_data(_START_LIMIT_S, running.check)
                yield {"start": number + 1, "seconds": round(time.monotonic() - began, 1)}


def quiet(directory: Path, seconds: float = 20.0) -> Iterator[Finding]:
    """CPU of connected actors without a single event, as a share of one core, three times."""
    with relay(directory) as (_, running):
        groups = {"actors": running.relay(), "Ray's daemons": running.daemons()}
        driver = groups["actors"].pop("driver")
        groups["driver"] = {"driver": driver}
        for _ in range(3):
            before = {pid: cpu_s(pid) for pids in groups.values() for pid in pids.values()}
            time.sleep(seconds)
            for name, pids in groups.items():
                used_s = sum(cpu_s(pid) - before[pid] for pid in pids.values())
                percent = round(100 * used_s / seconds, 1)
                yield {"who": name, "processes": len(pids), "percent_of_a_core": percent}


def calm_hops(directory: Path) -> Iterator[Finding]:
    """The latency of each hop at 1,000 msg/s, five times."""
    with relay(directory) as (testbed, running):
        for number in range(5):
            for finding in hops(testbed, running, dict.fromkeys(STREAMS, 100.0)):
                yield {"round": number + 1} | finding


def many_streams(directory: Path, rate_per_s: float = 2000.0) -> Iterator[Finding]:
    """The same total rate over a growing number of streams."""
    for count in (10, 20, 40, 80):
        streams = tuple(f"coin{number}usdt@trade" for number in range(count))
        with relay(directory / str(count), streams=streams) as (testbed, running):
            yield {"streams": count} | _figures(testbed, running, _even(streams, rate_per_s))


def many_publishers(directory: Path) -> Iterator[Finding]:
    """A flood on eight streams, two calm ones, and a growing number of publishers."""
    flooded, calm = STREAMS[:8], STREAMS[8:]
    rates = dict.fromkeys(flooded, FLOOD_RATE_PER_S / len(flooded)) | dict.fromkeys(calm, 100.0)
    groups = {"calm": calm, "all": STREAMS}
    load = Load("flood of eight", 5.0, rates, groups=groups, awaited=calm)
    for count in (1, 2, 4, 8):
        scale = {"min": 1, "max": 8, "scale": count}
        with relay(directory / str(count), publishers=scale) as (testbed, running):
            measured = measure(testbed, running, load, 0)
            on_time = sum(counts.on_time for counts in measured.streams.values())
            yield {
                "publishers": count,
                "arrived_per_s": round(on_time / (measured.seconds + load.grace_s)),
                "lost_of_calm": measured.lost(calm),
            } | _latency(measured, "calm")


def journal(directory: Path, rate_per_s: float = 5000.0) -> Iterator[Finding]:
    """With and without a journal, alternating."""
    for number in range(3):
        for state in ("on", "off"):
            section = {"directory": str(directory / f"{number}-{state}-journal"), "enabled": state == "on"}
            with relay(directory / f"{number}-{state}", journal=section) as (testbed, running):
                yield {"journal": state} | _figures(testbed, running, _even(STREAMS, rate_per_s))


def saturated(directory: Path) -> Iterator[Finding]:
    """CPU a message where the streams' backlogs never run empty."""
    rates = {_CORE: 120_000.0, _JETSTREAM: 60_000.0}
    for delivery, rate_per_s in rates.items():
        with relay(directory / delivery, delivery) as (testbed, running):
            for _ in range(3):
                yield {"delivery": delivery} | _figures(testbed, running, _even(STREAMS, rate_per_s))


def held_memory(directory: Path, minutes: int = 10) -> Iterator[Finding]:
    """The largest actor of each role after each minute; one stream after the other floods for half a
    minute.
    """
    began = time.monotonic()
    with relay(directory) as (testbed, running):
        for minute in range(minutes):
            testbed.offer(dict.fromkeys(STREAMS, 100.0) | {STREAMS[minute % len(STREAMS)]: 10_000.0})
            time.sleep(30)
            testbed.offer(dict.fromkeys(STREAMS, 100.0))
            time.sleep(max(0.0, began + 60 * (minute + 1) - time.monotonic()))
            yield {"minute": minute + 1} | _most_memory(running)


def _most_memory(running: RunningSluice) -> Finding:
    most: dict[str, float] = {}
    for title, pid in running.relay().items():
        role = title.removeprefix("ray::").split()[0].removesuffix("Actor")
        held = memory(pid)
        for kind, size in (("rss", held.rss_bytes), ("pss", held.pss_bytes)):
            key = f"{role} {kind} MB"
            most[key] = max(most.get(key, 0.0), round(size / 1e6, 1))
    return dict(sorted(most.items()))


def _even(streams: tuple[str, ...], rate_per_s: float) -> Load:
    rates = dict.fromkeys(streams, rate_per_s / len(streams))
    return Load("even", 5.0, rates, groups={"all": streams}, awaited=streams)


def _figures(testbed: Testbed, running: RunningSluice, load: Load) -> Finding:
    measured = measure(testbed, running, load, 0)
    return {
        "sent_per_s": round(measured.sent_per_s),
        "lost": measured.lost(load.awaited),
        "late": measured.late(load.awaited),
        "cpu_us_per_message": round(measured.cpu_us_per_message, 1),
    } | _latency(measured, "all")


def _latency(measured: Measurement, group: str) -> Finding:
    return {f"p{100 * q:g}_ms": round(measured.quantile_ms(group, q), 2) for q in (0.5, 0.99)}


QUESTIONS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "start": start,
    "hops": calm_hops,
    "quiet": quiet,
    "streams": many_streams,
    "publishers": many_publishers,
    "journal": journal,
    "saturated": saturated,
    "memory": held_memory,
}


def main() -> int:
    choice = ", ".join(QUESTIONS)
    parser = argparse.ArgumentParser(prog="bench.limits", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {choice}; else all")
    parser.add_argument("--minutes", type=int, default=10, help="how long to watch the memory")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="folder for the figures")
    given = parser.parse_args()
    if unknown := set(given.questions) - QUESTIONS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: no such question; take some of {choice}")
    questions = QUESTIONS | {"memory": partial(held_memory, minutes=given.minutes)}
    found: dict[str, list[Finding]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-limits-") as scratch:
            for name in given.questions or QUESTIONS:
                found[name] = []
                for finding in questions[name](Path(scratch) / name):
                    found[name].append(finding)
                    text = ", ".join(f"{key} {value}" for key, value in finding.items())
                    print(f"{name}: {text}", flush=True)
    except SluiceError as error:
        print(f"bench.limits: {error}", file=sys.stderr)
        return 1
    print(_write(found, given.output))
    return 0


def _write(found: dict[str, list[Finding]], folder: Path) -> Path:
    """Findings of earlier runs on the same day and machine are kept, unless measured again."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = this_machine()
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-{machine.slug}-limits.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))["findings"] if path.exists() else {}
    text = json.dumps({"machine": asdict(machine), "findings": earlier | found}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
