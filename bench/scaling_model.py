"""A relay of thousands of streams as numbers: rates over a day, publishers that fill up, fail and drain.

It replaces the actors and Ray; the controller's own code decides. The caller advances the time, and the
random numbers are seeded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields
from math import pi, sin
from random import Random
from typing import Any, TypeVar

from relay.control.reconcile import Assign, Create, Drain, Instruction, Remove
from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import Assignment
from relay.model.choices import Overflow
from relay.model.stats import PublisherStats, StreamState, StreamStats
from relay.ports import Observation

_T = TypeVar("_T", bound=Any)

DAY_S = 86_400.0
CAPACITY_PER_S = 15_000.0
# One publisher serves a stream, so a stream beyond a publisher's capacity is not a matter of scaling.
MOST_PER_S = 0.8 * CAPACITY_PER_S
START_S = 3.0
# The rate varies over the day by this share of the average, up and down.
SWING = 0.6


@dataclass(slots=True)
class Stream:
    """`flood` multiplies the rate for a while."""

    key: str
    base_per_s: float
    phase: float
    stats: StreamStats
    flood: float = 1.0
    backlog: float = 0.0
    publisher: str | None = None
    assignment: Assignment | None = None
    rate_per_s: float = 0.0


@dataclass(slots=True)
class Publisher:
    """`serves_at` is when it answers."""

    name: str
    serves_at: float
    used_by: int = 0
    offered_per_s: float = 0.0
    drained: bool = False
    stats: PublisherStats = field(init=False)

    def __post_init__(self) -> None:
        self.stats = _idle(
            PublisherStats,
            publisher=self.name,
            node="n",
            unix_path="",
            tcp_address=f"10.0.0.1:{self.name[1:]}",
            connected=True,
            draining=False,
            streams=(),
            capacity_per_s=CAPACITY_PER_S,
        )


@dataclass
class Fleet:
    """All streams and publishers. `moves` counts streams that were assigned another publisher."""

    count: int
    mean_per_s: float
    dice: Random
    streams: dict[str, Stream] = field(default_factory=dict)
    publishers: dict[str, Publisher] = field(default_factory=dict)
    moves: int = 0
    failovers: int = 0
    ack_ms: float = 3.0

    def __post_init__(self) -> None:
        for number in range(self.count):
            key = f"usdm:s{number}usdt@trade"
            base = self.mean_per_s * self.dice.lognormvariate(-0.5, 1.0)
            self.streams[key] = Stream(key, base, self.dice.uniform(-0.4, 0.4), _stream_stats(key))

    def advance(self, now: float, elapsed_s: float) -> None:
        """Let `elapsed_s` pass: rates change, publishers work, backlogs grow or shrink."""
        for publisher in self.publishers.values():
            publisher.offered_per_s, publisher.used_by = 0.0, 0
        for stream in self.streams.values():
            day = sin(2 * pi * now / DAY_S + stream.phase)
            stream.rate_per_s = min(stream.base_per_s * stream.flood * (1 + SWING * day), MOST_PER_S)
            self._fail_over(stream, now)
            if stream.publisher is not None:
                user = self.publishers[stream.publisher]
                user.offered_per_s += stream.rate_per_s + stream.backlog / max(elapsed_s, 1.0)
                user.used_by += 1
        for stream in self.streams.values():
            self._work(stream, elapsed_s)

    def _fail_over(self, stream: Stream, now: float) -> None:
        """As streams do by themselves: to the next endpoint that serves."""
        current = self.publishers.get(stream.publisher or "")
        if (current is not None and current.serves_at <= now) or stream.assignment is None:
            return
        serving = (
            endpoint.publisher
            for endpoint in stream.assignment.endpoints
            if endpoint.publisher in self.publishers and self.publishers[endpoint.publisher].serves_at <= now
        )
        stream.publisher = next(serving, None)
        self.failovers += stream.publisher is not None

    def _work(self, stream: Stream, elapsed_s: float) -> None:
        served_per_s = 0.0
        if stream.publisher is not None:
            publisher = self.publishers[stream.publisher]
            share = min(1.0, CAPACITY_PER_S / max(publisher.offered_per_s, 1e-9))
            served_per_s = share * (stream.rate_per_s + stream.backlog / max(elapsed_s, 1.0))
        stream.backlog = max(0.0, stream.backlog + (stream.rate_per_s - served_per_s) * elapsed_s)

    def observations(self, now: float) -> dict[ActorId, Observation]:
        found: dict[ActorId, Observation] = {}
        for key, stream in self.streams.items():
            _update_stats(stream)
            found[ActorId(Role.STREAM, key)] = stream.stats
        for name, publisher in self.publishers.items():
            actor = ActorId(Role.PUBLISHER, name)
            serves = publisher.serves_at <= now
            found[actor] = self._publisher_stats(publisher) if serves else Silence.STARTING
        return found

    def drains(self, draining: Iterable[ActorId]) -> dict[ActorId, bool]:
        return {actor: True for actor in draining if actor.key in self.publishers}

    def do(self, instruction: Instruction, now: float) -> None:
        match instruction:
            case Create(actor):
                self.publishers[actor.key] = Publisher(actor.key, now + START_S * self.dice.uniform(0.7, 3.0))
            case Assign(actor, assignment):
                stream = self.streams[actor.key]
                self.moves += stream.publisher is not None and stream.publisher != assignment.publisher
                stream.assignment, stream.publisher = assignment, assignment.publisher
                self._fail_over(stream, now)
            case Remove(actor):
                self.publishers.pop(actor.key, None)
            case Drain(actor):
                self.publishers[actor.key].drained = True

    def kill(self, count: int, now: float) -> None:
        """Ray starts them again under their names."""
        for name in self.dice.sample(sorted(self.publishers), min(count, len(self.publishers))):
            self.publishers[name].serves_at = now + START_S

    def flood(self, count: int, factor: float) -> list[Stream]:
        chosen = self.dice.sample(list(self.streams.values()), count)
        for stream in chosen:
            stream.flood = factor
        return chosen

    def demand_per_s(self) -> float:
        return sum(stream.rate_per_s for stream in self.streams.values())

    def oldest_s(self) -> float:
        return max(stream.backlog / max(stream.rate_per_s, 1.0) for stream in self.streams.values())

    def _publisher_stats(self, publisher: Publisher) -> PublisherStats:
        rate = min(publisher.offered_per_s, CAPACITY_PER_S)
        stats, change = publisher.stats, object.__setattr__
        change(stats, "draining", publisher.drained)
        change(stats, "rate_per_s", rate)
        change(stats, "load", rate / CAPACITY_PER_S)
        change(stats, "ack_p99_ms", self.ack_ms)
        return stats


def _update_stats(stream: Stream) -> None:
    """Change the record in place: making 10,000 new ones would take longer than the decisions."""
    stats, assignment = stream.stats, stream.assignment
    change = object.__setattr__
    change(stats, "rate_per_s", stream.rate_per_s)
    change(stats, "queued", int(stream.backlog))
    change(stats, "backlog_age_s", stream.backlog / max(stream.rate_per_s, 1.0))
    change(stats, "publisher", stream.publisher)
    change(stats, "linked", stream.publisher is not None)
    change(stats, "assignment_version", assignment.version if assignment else 0)


def _stream_stats(key: str) -> StreamStats:
    venue, _, name = key.partition(":")
    symbol, _, channel = name.partition("@")
    return _idle(
        StreamStats,
        stream=name,
        venue=venue,
        symbol=symbol,
        channel=channel,
        state=StreamState.LIVE,
        overflow=Overflow.SPILL,
        node="n",
        publisher=None,
    )


def _idle(kind: type[_T], **known: object) -> _T:
    """A record with `known` fields; the others are counts and times, and 0."""
    required = [each for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    made: _T = kind(**(dict.fromkeys((each.name for each in required), 0) | known))
    return made
