"""`python -m bench`: measure every system, print the table, write the figures and the plots."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path

from bench.loads import FULL, QUICK, Plan, ramp_step, recorded
from bench.machine import this_machine
from bench.measure import measure
from bench.measurement import Measurement
from bench.plots import pictures
from bench.ramp import run_ramp
from bench.report import RampResult, Results, as_json, table
from bench.systems import SYSTEMS, Running
from bench.testbed import Testbed, start_testbed
from relay.errors import SluiceError
from simulator.replay import load_recording

_RESULTS = Path(__file__).resolve().parent / "results"
_RECORDINGS = _RESULTS.parents[2] / "shared" / "samples"
_START_LIMIT_S = 90.0


class Bench:
    """Collects the measurements of all rounds; `directory` holds stores, journals and logs."""

    def __init__(self, plan: Plan, systems: tuple[str, ...], directory: Path) -> None:
        self._plan = plan
        self._systems = systems
        self._directory = directory
        self._measurements: list[Measurement] = []
        self._ramps: list[RampResult] = []
        self._ramps_s = 0.0
        self._starts_s: dict[str, list[float]] = {SYSTEMS[slug].name: [] for slug in systems}

    def run(self) -> Results:
        """Round by round, so that other load on the machine affects all systems alike."""
        began = time.monotonic()
        round_s = 0.0
        for number in range(self._plan.rounds):
            round_began, ramps_s = time.monotonic(), self._ramps_s
            if round_began - began + round_s > self._plan.limit_s:
                print(f"no time for round {number + 1} of {self._plan.rounds}", file=sys.stderr)
                break
            for slug in self._systems:
                self._visit(slug, number)
            round_s = time.monotonic() - round_began - (self._ramps_s - ramps_s)
        return Results(
            this_machine(),
            self._plan,
            tuple(self._starts_s),
            tuple(self._measurements),
            tuple(self._ramps),
            self._starts_s,
        )

    def _visit(self, slug: str, number: int) -> None:
        system = SYSTEMS[slug]
        with start_testbed(self._directory / f"{number}-{slug}") as testbed:
            began = time.monotonic()
            with system.start(testbed) as running:
                testbed.await_first_data(_START_LIMIT_S, running.check)
                self._starts_s[system.name].append(round(time.monotonic() - began, 2))
                for load in self._plan.loads:
                    self._take(measure(testbed, running, load, number))
                if number == 0:
                    self._run_ramp(testbed, running)
                self._take(measure(testbed, running, self._plan.flood, number))

    def _take(self, measured: Measurement) -> None:
        self._measurements.append(measured)
        _say(measured)

    def _run_ramp(self, testbed: Testbed, running: Running) -> None:
        plan, began = self._plan, time.monotonic()

        def step(rate_per_s: float, seconds: float) -> Measurement:
            measured = measure(testbed, running, ramp_step(rate_per_s, seconds, plan.ramp_hold_s), 0)
            _say(measured)
            return measured

        self._ramps.append(run_ramp(running.name, plan.ramp_rates, plan.ramp_step_s, plan.ramp_hold_s, step))
        self._ramps_s += time.monotonic() - began


def _say(of: Measurement) -> None:
    late, cpu_us = of.late(of.streams), of.cpu_us_per_message
    print(
        f"{of.system:<24}{of.load:<7}{of.offered_per_s:>8,.0f}/s for {of.seconds:4.1f} s: "
        f"sent {of.sent:>9,}, late {late:>9,}, CPU {cpu_us:6.1f} us a message",
        file=sys.stderr,
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short loads, one round")
    parser.add_argument(
        "--systems", nargs="+", choices=tuple(SYSTEMS), default=tuple(SYSTEMS), metavar="SYSTEM"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="so many, however long it takes")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="folder for figures and pictures")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
            results = Bench(_plan(given), tuple(given.systems), Path(directory)).run()
    except SluiceError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(table(results))
    for path in write(results, given.output, quick=given.quick):
        print(path)
    return 0


def _plan(given: argparse.Namespace) -> Plan:
    plan = QUICK if given.quick else FULL
    if tracks := _recorded_tracks():
        calm, *others = plan.loads
        plan = replace(plan, loads=(calm, recorded(plan.recorded_s, tracks), *others))
    else:
        print(f"no recordings in {_RECORDINGS}: that load is left out", file=sys.stderr)
    return replace(plan, rounds=given.rounds, limit_s=inf) if given.rounds else plan


def _recorded_tracks() -> list[list[float]]:
    """The arrival times of each recorded stream, busiest recording first."""
    recordings = [load_recording(path) for path in sorted(_RECORDINGS.glob("*.gz"), reverse=True)]
    return [track.times_s for recording in recordings for track in recording.tracks.values()]


def write(results: Results, folder: Path, *, quick: bool) -> list[Path]:
    """The files written: figures first, then plots."""
    folder.mkdir(parents=True, exist_ok=True)
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    stem = f"{day}-{results.machine.slug}{'-quick' if quick else ''}"
    figures = folder / f"{stem}.json"
    figures.write_text(json.dumps(as_json(results)) + "\n", encoding="utf-8")
    written = [figures]
    for name, text in pictures(results).items():
        path = folder / f"{stem}-{name}.svg"
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    sys.exit(main())
