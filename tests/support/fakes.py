"""Stand-ins for what only a real cluster has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from relay.config import NatsConfig, StreamSettings
from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import Assignment
from relay.model.choices import Overflow
from relay.model.stats import LegState, PublisherStats, StreamState, StreamStats, WarmLeg
from relay.ports import Observation, Room


def stream_stats(key: str, **changes: Any) -> StreamStats:
    venue, _, name = key.partition(":")
    symbol, _, channel = name.partition("@")
    stats = StreamStats(
        stream=name, venue=venue, symbol=symbol, channel=channel, state=StreamState.LIVE,
        overflow=Overflow.SPILL, epoch=1, pid=10, node="n", received=10, acknowledged=10,
        last_data_age_s=0.1, rate_per_s=70.0, bytes_per_s=9000.0,
        latency_p50_ms=0.8, latency_p99_ms=2.1, latency_max_ms=5.0,
        relay_latency_p50_ms=0.2, relay_latency_p99_ms=0.6,
    )  # fmt: skip
    return replace(stats, **changes)


def warm_stats(key: str, *, ready: bool = True, **changes: Any) -> StreamStats:
    """What the standby of a critical stream answers."""
    node = changes.get("node", "n")
    warm = WarmLeg(node=node, pid=12, state=StreamState.LIVE, ready=ready, remembered=3)
    counts = {"epoch": 0, "received": 0, "acknowledged": 0, "pid": 12}
    return stream_stats(key, critical=True, leg=LegState.WARM, warm=warm, **{**counts, **changes})


def publisher_stats(name: str, **changes: Any) -> PublisherStats:
    stats = PublisherStats(
        publisher=name, pid=11, node="n", unix_path=f"/run/{name}", tcp_address="127.0.0.1:1",
        connected=True, draining=False, streams=(), rate_per_s=100.0, bytes_per_s=1.0, load=0.05,
        capacity_per_s=20000.0, queued=0, in_flight=0, batches=1, acknowledged=1, duplicates=0,
        errors=0, reconnects=0, ack_p50_ms=0.3, ack_p99_ms=0.9,
    )  # fmt: skip
    return replace(stats, **changes)


class FakeCluster:
    """Actors that answer from the second observation on, obey at once, and count their creations.

    `silent` actors give no stats, `stuck` ones never start, `failing` ones die as they start. `left_behind`
    lists streams whose publisher was drained under them.
    """

    def __init__(self) -> None:
        self.streams: dict[str, StreamStats] = {}
        self.twins: dict[str, StreamStats] = {}
        self.node_names = frozenset({"n"})
        self.rooms: dict[ActorId, Room] = {}
        self.publishers: dict[str, PublisherStats] = {}
        self.facts: dict[str, bytes] = {}
        self.silent: dict[ActorId, Silence] = {}
        self.created: Counter[ActorId] = Counter()
        self.assigned: Counter[str] = Counter()
        self.left_behind: list[str] = []
        self.drained_in_order: list[ActorId] = []
        self.failing: set[ActorId] = set()
        self.stuck: set[ActorId] = set()
        self._drains: dict[ActorId, Observation | None] = {}

    def actors(self) -> frozenset[ActorId]:
        streams = {ActorId(Role.STREAM, key) for key in self.streams}
        twins = {ActorId(Role.TWIN, key) for key in self.twins}
        return frozenset(streams | twins | {ActorId(Role.PUBLISHER, name) for name in self.publishers})

    def nodes(self, label: str | None) -> frozenset[str]:
        return self.node_names

    def create_stream(self, settings: StreamSettings, room: Room) -> None:
        key, node = settings.spec.key, room.node or "n"
        self._create(ActorId(Role.STREAM, key))
        self.rooms[ActorId(Role.STREAM, key)] = room
        self.streams.setdefault(key, stream_stats(key, critical=settings.critical, node=node))

    def create_twin(self, settings: StreamSettings, room: Room) -> None:
        key = settings.spec.key
        self._create(ActorId(Role.TWIN, key))
        self.rooms[ActorId(Role.TWIN, key)] = room
        self.twins.setdefault(key, warm_stats(key, node=room.node or "n"))

    def create_publisher(self, publisher: str, nats: NatsConfig, room: Room) -> None:
        self._create(ActorId(Role.PUBLISHER, publisher))
        self.publishers.setdefault(publisher, publisher_stats(publisher))

    def _create(self, actor: ActorId) -> None:
        self.created[actor] += 1
        self.silent[actor] = Silence.DEAD if actor in self.failing else Silence.STARTING

    def observe(self, actors: Iterable[ActorId], deadline_s: float) -> Mapping[ActorId, Observation]:
        answers = {actor: self.silent.get(actor) or self._stats(actor) for actor in actors}
        for actor, answer in answers.items():
            if answer is Silence.STARTING and actor not in self.stuck:
                del self.silent[actor]
            elif answer is Silence.DEAD:
                self.remove(actor)
        return answers

    def _stats(self, actor: ActorId) -> Observation:
        known: Mapping[Role, Mapping[str, Observation]] = {
            Role.STREAM: self.streams, Role.TWIN: self.twins, Role.PUBLISHER: self.publishers,
        }  # fmt: skip
        return known[actor.role][actor.key]

    def assign(self, actor: ActorId, assignment: Assignment) -> None:
        instances = self.streams if actor.role is Role.STREAM else self.twins
        if actor.role is Role.STREAM:
            self.assigned[actor.key] += 1
        standby = instances[actor.key].leg is LegState.WARM
        publisher = None if standby else assignment.publisher
        instances[actor.key] = replace(
            instances[actor.key],
            publisher=publisher,
            linked=not standby,
            assignment_version=assignment.version,
        )

    def change(self, stream: str, **changes: Any) -> None:
        self.streams[stream] = replace(self.streams[stream], **changes)

    def begin_drain(self, actor: ActorId, deadline_s: float) -> None:
        self.drained_in_order.append(actor)
        if actor.role is Role.STREAM:
            self.change(actor.key, state=StreamState.STOPPED)
        elif actor.role is Role.TWIN:
            self.twins[actor.key] = replace(self.twins[actor.key], state=StreamState.STOPPED)
        else:
            used = [key for key, stats in self.streams.items() if stats.publisher == actor.key]
            self.left_behind += used
            self.publishers[actor.key] = replace(self.publishers[actor.key], draining=True)
        self._drains[actor] = self._stats(actor)

    def drained(self, actor: ActorId) -> Observation | None:
        return self._drains.get(actor)

    def remove(self, actor: ActorId) -> None:
        instances = self.twins if actor.role is Role.TWIN else self.streams
        instances.pop(actor.key, None)
        self.publishers.pop(actor.key, None)
        self.silent.pop(actor, None)
        self._drains.pop(actor, None)

    def load(self, fact: str) -> bytes | None:
        return self.facts.get(fact)

    def load_all(self, prefix: str) -> Mapping[str, bytes]:
        return {
            fact.removeprefix(prefix): value for fact, value in self.facts.items() if fact.startswith(prefix)
        }

    def save(self, fact: str, value: bytes) -> None:
        self.facts[fact] = value

    def forget(self, fact: str) -> None:
        self.facts.pop(fact, None)
