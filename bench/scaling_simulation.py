"""`python -m bench.scaling_simulation`: a day of 10,000 streams and up to 1,000 publishers, in virtual time.

It measures the controller's decisions, from the observations to the instructions: their cost in each round,
how closely the pool follows the demand, and how many streams are moved. Collecting the observations is not
included.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from math import ceil
from pathlib import Path
from random import Random
from statistics import quantiles

from bench.machine import this_machine
from bench.scaling_model import CAPACITY_PER_S, DAY_S, Fleet
from bench.svg import Axis, Series, line_chart, linear_axis
from relay.control.assign import Placement, assign, keep_failed_over, publish
from relay.control.autoscale import (
    DRAIN_S,
    UP_SHARE,
    Decision,
    PublisherLoad,
    ScaleSettings,
    ScaleSnapshot,
    ScaleState,
    decide,
)
from relay.control.observation import ClusterView
from relay.control.reconcile import Desired, Drain, Instruction, Remove, Retire, reconcile
from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import Assignment
from relay.ports import Observation

_RESULTS = Path(__file__).resolve().parent / "results"
# The controller observes once a second; quiet hours are simulated with fewer rounds, to save time.
ROUND_S, QUIET_ROUND_S, ACTIVE_S = 1.0, 30.0, 60.0
FLOOD_FACTOR = 40.0


class Controls:
    """The controller's decisions, and their state between rounds."""

    def __init__(self, streams: int, publishers: int, start: int) -> None:
        self.state = ScaleState(wanted=start)
        self.decision = Decision(start, "")
        self._settings = ScaleSettings(minimum=1, maximum=publishers)
        self._streams = streams
        self._view = ClusterView()
        self._placed: dict[str, Placement] = {}
        self._published: dict[str, Assignment] = {}
        self._draining: set[ActorId] = set()

    def decide(
        self, observations: dict[ActorId, Observation], drained: dict[ActorId, bool], now: float
    ) -> list[Instruction]:
        watch = self._view
        watch.update(observations, now)
        loads = {stats.publisher: stats.rate_per_s for stats in watch.publishers()}
        observed = watch.observed({}, drained, loads)
        leaving = sum(found.retired_s is not None for found in observed.publishers.values())
        self.decision, self.state = decide(self._settings, self._snapshot(leaving), self.state, now)
        self._place(now)
        desired = Desired(
            streams=dict.fromkeys(observed.streams, ""),
            publishers=self.decision.wanted,
            assignments=self._published,
        )
        instructions = reconcile(desired, observed, now)
        for instruction in instructions:
            self._note(instruction)
        return instructions

    def _snapshot(self, leaving: int) -> ScaleSnapshot:
        watch = self._view
        streams, silent = watch.streams(), watch.silences()
        starting = sum(silence is Silence.STARTING for silence in silent.values())
        return ScaleSnapshot(
            streams=self._streams,
            input_rate_per_s=sum(stats.rate_per_s for stats in streams),
            backlog=sum(stats.backlog_count for stats in streams),
            backlog_age_s=max((stats.backlog_age_s for stats in streams), default=0.0),
            publishers=tuple(
                PublisherLoad(
                    rate_per_s=stats.rate_per_s,
                    load=stats.load,
                    ack_p99_ms=stats.ack_p99_ms,
                    connected=stats.connected,
                )
                for stats in watch.publishers()
                if not stats.draining
            ),
            starting=starting,
            leaving=leaving,
            unreachable=len(silent) - starting,
        )

    def _place(self, now: float) -> None:
        endpoints = self._view.endpoints()
        if not endpoints:
            return
        demand, used, reported = {}, {}, 0
        for stats in self._view.streams():
            key = stats.key
            demand[key] = stats.rate_per_s + stats.backlog_count / DRAIN_S
            reported = max(reported, stats.assignment_version)
            if stats.publisher is not None and stats.linked:
                used[key] = (stats.publisher, stats.assignment_version)
        placed = keep_failed_over(self._placed, self._published, used, endpoints, now)
        self._placed = assign(demand, endpoints, self.state.capacity_per_s, placed, now)
        self._published.update(publish(self._published, self._placed, endpoints, reported))

    def _note(self, instruction: Instruction) -> None:
        if isinstance(instruction, Retire):
            self._view.on_retired(instruction.publisher)
        elif isinstance(instruction, Drain):
            self._draining.add(instruction.actor)
        elif isinstance(instruction, Remove):
            self._view.on_removed(instruction.actor)
            self._draining.discard(instruction.actor)
        elif hasattr(instruction, "actor") and instruction.actor.role is Role.PUBLISHER:
            self._view.on_created(instruction.actor)

    @property
    def draining(self) -> set[ActorId]:
        return self._draining


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: publishers wanted, serving, and the least number that suffices."""

    at_s: float
    wanted: int
    serving: int
    needed: int
    oldest_s: float


@dataclass
class Course:
    """A simulated day. `costs_ms` is the time of each round's decisions; `start_ms` the longest during
    the start.
    """

    streams: int
    publishers: int
    hours: float
    samples: list[Sample] = field(default_factory=list)
    costs_ms: list[float] = field(default_factory=list)
    moves: int = 0
    failovers: int = 0
    start_ms: float = 0.0

    @property
    def turns(self) -> int:
        """How often the pool turned from growing to shrinking or back."""
        sizes = [sample.wanted for sample in self.samples]
        steps = [later - earlier for earlier, later in pairwise(sizes) if later != earlier]
        return sum((one > 0) != (other > 0) for one, other in pairwise(steps))

    def figures(self) -> dict[str, float]:
        cost = quantiles(self.costs_ms, n=100) if len(self.costs_ms) > 1 else self.costs_ms * 99
        late = [sample.oldest_s for sample in self.samples]
        return {
            "streams": self.streams,
            "publishers": self.publishers,
            "hours": self.hours,
            "looks": len(self.costs_ms),
            "cost_p50_ms": round(cost[49], 2),
            "cost_p99_ms": round(cost[98], 2),
            "cost_max_ms": round(max(self.costs_ms), 2),
            "cost_of_the_start_ms": round(self.start_ms, 2),
            "moves": self.moves,
            "moves_per_stream_and_hour": round(self.moves / self.streams / self.hours, 4),
            "failovers": self.failovers,
            "turns": self.turns,
            "longest_backlog_s": round(max(late), 2),
            "share_of_looks_with_1_s_of_backlog": round(sum(age > 1.0 for age in late) / len(late), 5),
            "most_publishers": max(sample.wanted for sample in self.samples),
            "fewest_publishers": min(sample.wanted for sample in self.samples),
        }


Event = tuple[float, Callable[[Fleet, float], None]]


def day_of_trouble(streams: int, hours: float, dice: Random) -> list[Event]:
    """Every hour a flood and a failure, sorted by time; once NATS is slow for a quarter of an hour."""
    events: list[Event] = []

    def flood(fleet: Fleet, now: float, count: int, lasts_s: float) -> None:
        chosen = fleet.flood(count, FLOOD_FACTOR)

        def end(_: Fleet, __: float) -> None:
            for stream in chosen:
                stream.flood = 1.0

        events.append((now + lasts_s, end))
        events.sort(key=lambda event: event[0])

    def slow(fleet: Fleet, now: float) -> None:
        fleet.ack_ms = 400.0

    def usual(fleet: Fleet, now: float) -> None:
        fleet.ack_ms = 3.0

    def a_flood(at_s: float, count: int, lasts_s: float) -> Event:
        return at_s, lambda fleet, now: flood(fleet, now, count, lasts_s)

    def a_failure(at_s: float, count: int) -> Event:
        return at_s, lambda fleet, now: fleet.kill(count, now)

    for hour in range(int(hours)):
        count = max(1, streams // dice.choice((1000, 200, 50)))
        events.append(a_flood((hour + dice.random()) * 3600, count, dice.uniform(60, 900)))
        events.append(a_failure((hour + dice.random()) * 3600, dice.choice((1, 3, 20))))
    middle_s = hours * 1800
    events += [(middle_s, slow), (middle_s + 900, usual)]
    events.sort(key=lambda event: event[0])
    return events


def simulate(streams: int, publishers: int, hours: float, mean_per_s: float, seed: int = 1) -> Course:
    dice = Random(seed)
    fleet = Fleet(streams, mean_per_s, dice)
    controls = Controls(streams, publishers, ceil(streams * mean_per_s / CAPACITY_PER_S))
    course = Course(streams, publishers, hours)
    events = day_of_trouble(streams, hours, dice)
    # The fleet is not part of the controller: without this, garbage collections would traverse it and count
    # as cost.
    gc.freeze()
    for now, elapsed_s in _rounds(hours * 3600, events):
        while events and events[0][0] <= now:
            events.pop(0)[1](fleet, now)
        fleet.advance(now, elapsed_s)
        observations, drained = fleet.observations(now), fleet.drains(controls.draining)
        began = time.perf_counter()
        instructions = controls.decide(observations, drained, now)
        course.costs_ms.append(1e3 * (time.perf_counter() - began))
        for instruction in instructions:
            fleet.do(instruction, now)
        serving = sum(publisher.serves_at <= now for publisher in fleet.publishers.values())
        needed = ceil(fleet.demand_per_s() / (CAPACITY_PER_S * UP_SHARE))
        course.samples.append(Sample(now, controls.decision.wanted, serving, needed, fleet.oldest_s()))
        if now < ACTIVE_S:
            # The start, when every stream is placed at once, is reported separately.
            course.start_ms = max(course.start_ms, course.costs_ms.pop())
            course.samples.clear()
            fleet.moves = 0
    gc.unfreeze()
    course.moves, course.failovers = fleet.moves, fleet.failovers
    return course


def _rounds(until_s: float, events: list[Event]) -> Iterator[tuple[float, float]]:
    """Times of rounds and the time since the one before: every second while something happens."""
    now, active_until = 0.0, 4 * ACTIVE_S
    while now < until_s:
        if events and events[0][0] <= now + QUIET_ROUND_S:
            active_until = events[0][0] + ACTIVE_S
        step_s = ROUND_S if now < active_until else QUIET_ROUND_S
        now += step_s
        yield now, step_s


def picture(course: Course, machine: str) -> str:
    """A plot of the pool and the demand over the day."""
    hours = max(1, round(course.hours))
    ticks = tuple((float(hour), str(hour)) for hour in range(0, hours + 1, max(1, hours // 8)))
    every = max(1, len(course.samples) // 600)
    chosen = course.samples[::every]
    series = [
        Series("serving", "#1f77b4", tuple((one.at_s / 3600, one.serving) for one in chosen)),
        Series("needed", "#d62728", tuple((one.at_s / 3600, one.needed) for one in chosen), "8 6"),
    ]
    figures = course.figures()
    title = f"Publishers for {course.streams:,} streams over a simulated day"
    text = (
        f"deciding: p50 {figures['cost_p50_ms']:.0f} ms, p99 {figures['cost_p99_ms']:.0f} ms a round;"
        f" {course.moves:,} moves; {machine}"
    )
    most = max(max(one.serving, one.needed) for one in chosen)
    x = Axis("hour", 0.0, float(hours), ticks)
    return line_chart(title, text, x, linear_axis("publishers", most), series)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling_simulation", description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--publishers", type=int, default=1_000)
    parser.add_argument("--hours", type=float, default=DAY_S / 3600)
    parser.add_argument("--mean-per-s", type=float, default=400.0)
    options = parser.parse_args()
    course = simulate(options.streams, options.publishers, options.hours, options.mean_per_s)
    machine = this_machine()
    name = f"{datetime.now(UTC):%Y-%m-%d}-{machine.slug}-scaling"
    figures = {"machine": asdict(machine), "figures": course.figures()}
    (_RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
    (_RESULTS / f"{name}.svg").write_text(picture(course, str(machine)))
    for key, value in course.figures().items():
        print(f"{key:36} {value:>12,}")


if __name__ == "__main__":
    main()
