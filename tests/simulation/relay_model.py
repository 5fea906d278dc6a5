"""Sluice's own actors as processes of a world: they die, come back, and learn of each other.

This stands for the controller and Ray, and does no more than they must: a dead actor is started again after a
while, and every stream is told which publisher to use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from actors.publisher.actor import Publisher
from actors.publisher.dispatcher import DispatcherLimits
from actors.publisher.sessions import PublisherSettings
from actors.standby.relay import StandbyRelay
from actors.stream.relay import StreamRelay
from actors.stream.start import FreshStart
from relay.config import Config, StreamSettings
from relay.model.assignment import Assignment, PublisherEndpoint
from relay.publish.lane import LaneLimits
from tests.simulation.disk import Disk
from tests.simulation.world import Process, World
from tests.support.hosts import PlainHost

RESTART_S = (0.3, 2.5)


class SimulatedHost(PlainHost):
    """Its socket folder has too long a name for unix sockets, so everything is TCP."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.close()
        self.socket_directory = folder / ("x" * 120)
        self.socket_directory.mkdir()


@dataclass
class Incarnation:
    """`relay` is None until its journal is open, and while its `standby` is not active."""

    process: Process
    relay: StreamRelay | None = None
    standby: StandbyRelay | None = None

    @property
    def epoch(self) -> int:
        return self.relay.epoch if self.relay else 0

    @property
    def ready(self) -> bool:
        """It could take over without a loss."""
        return self.process.alive and self.standby is not None and self.standby._own_status().ready


@dataclass
class StreamActors:
    """All incarnations of one stream, the newest last; of a critical one, `instances` are the present
    ones."""

    settings: StreamSettings
    publisher: str
    incarnations: list[Incarnation] = field(default_factory=list)
    # The processes that took the journal over, in which turn of the world, and their epochs.
    owners: list[tuple[str, int, int]] = field(default_factory=list)
    instances: dict[bool, Incarnation] = field(default_factory=dict)

    @property
    def newest(self) -> Incarnation:
        """Of two instances the active one."""
        if not self.instances:
            return self.incarnations[-1]
        return max(self.incarnations, key=lambda one: (one.process.alive, one.epoch))

    @property
    def standby(self) -> Incarnation:
        others = (one for one in self.instances.values() if one is not self.newest)
        return max(others, key=lambda one: one.process.alive)

    @property
    def key(self) -> str:
        return self.settings.spec.key


class SimulatedStandby(StandbyRelay):
    """Tells when it becomes active."""

    on_active: Callable[[StreamRelay], None]

    def _take_over(self, group: asyncio.TaskGroup, feeding: asyncio.Task[None]) -> None:
        super()._take_over(group, feeding)
        assert self.relay is not None
        self.on_active(self.relay)


class RelayModel:
    def __init__(self, world: World, disk: Disk, config: Config, folder: Path, publishers: int) -> None:
        self.world = world
        self.disk = disk
        self.config = config
        self.host = SimulatedHost(folder)
        dice = world.rng
        self._lane = LaneLimits(
            credit_messages=dice.choice((4, 32, 1024)),
            credit_bytes=dice.choice((5_000, 1 << 22)),
            window_messages=dice.choice((2, 8, 32)),
        )
        self._flow = DispatcherLimits(quantum_bytes=dice.choice((2_000, 16_384)))
        self.publishers: dict[str, Process] = {}
        self._endpoints: dict[str, PublisherEndpoint] = {}
        self._version = 0
        self.streams: dict[str, StreamActors] = {}
        self.by_process: dict[Process, StreamRelay] = {}
        for number in range(publishers):
            self.start_publisher(f"p{number}")

    def start_publisher(self, name: str) -> None:
        process = self.world.process(name)
        settings = PublisherSettings(nats=self.config.nats, lane=self._lane, dispatcher=self._flow)

        async def main() -> None:
            publisher = Publisher(name, settings, self.host)
            await publisher.open()
            address = publisher.stats().tcp_address
            self._endpoints[name] = PublisherEndpoint(
                publisher=name, node=self.host.node, unix_path="", tcp_address=address
            )
            self._assign_all()
            await publisher.run()

        self.publishers[name] = process
        process.start(main())
        process.on_end.append(lambda: self._again(lambda: self.start_publisher(name)))

    def start_stream(self, settings: StreamSettings, publisher: str) -> StreamActors:
        stream = self.streams[settings.spec.key] = StreamActors(settings, publisher)
        if settings.critical:
            for twin in (False, True):
                self.start_instance(stream, twin)
        else:
            self.start_incarnation(stream)
        return stream

    def replace(self, stream: StreamActors) -> None:
        """Whichever of its processes stands still, or the present one."""
        paused = [twin for twin, instance in stream.instances.items() if instance.process.paused]
        if paused:
            self.start_instance(stream, paused[0])
        elif not stream.instances:
            self.start_incarnation(stream)

    def start_instance(self, stream: StreamActors, twin: bool) -> None:
        process = self.world.process(f"{stream.settings.spec.name}#{len(stream.incarnations) + 1}")
        incarnation = stream.instances[twin] = Incarnation(process)
        stream.incarnations.append(incarnation)

        def on_active(relay: StreamRelay) -> None:
            stream.owners.append((process.name, self.world.turns, relay.epoch))
            incarnation.relay = self.by_process[process] = relay

        async def main() -> None:
            incarnation.standby = SimulatedStandby(stream.settings, self.host, twin=twin)
            incarnation.standby.on_active = on_active
            await incarnation.standby.run()

        def again() -> None:
            if stream.instances[twin] is incarnation:
                self._again(lambda: self.start_instance(stream, twin))

        process.start(main())
        process.on_end.append(again)

    def start_incarnation(self, stream: StreamActors) -> None:
        process = self.world.process(f"{stream.settings.spec.name}#{len(stream.incarnations) + 1}")
        incarnation = Incarnation(process)
        stream.incarnations.append(incarnation)

        async def main() -> None:
            relay = StreamRelay(stream.settings, self.host, FreshStart(stream.settings, self.host))
            stream.owners.append((process.name, self.world.turns, relay.epoch))
            incarnation.relay = self.by_process[process] = relay
            await relay.run()

        def again() -> None:
            if stream.newest is incarnation:
                self._again(lambda: self.start_incarnation(stream))

        process.start(main())
        process.on_end.append(again)

    def _again(self, start: Callable[[], None]) -> None:
        if not self.world.is_over:
            self.world.after(self.world.rng.uniform(*RESTART_S), start)

    def close(self) -> None:
        """Let go of the files of all incarnations."""
        for stream in self.streams.values():
            for one in stream.incarnations:
                if one.relay is not None and one.relay._journal is not None:
                    one.relay._journal.close()
                if one.standby is not None:
                    one.standby.memory.close()

    def move(self, stream: StreamActors) -> None:
        stream.publisher = self.world.rng.choice(sorted(self.publishers))
        self._assign_all()

    def _assign_all(self) -> None:
        self._version += 1
        endpoints = tuple(self._endpoints[name] for name in sorted(self._endpoints))
        for stream in self.streams.values():
            known = stream.publisher in self._endpoints
            assignment = Assignment(
                version=self._version, publisher=stream.publisher if known else None, endpoints=endpoints
            )
            self.host.assignments[stream.key] = assignment
            for one in stream.instances.values():
                if one.standby is not None and one.process.alive:
                    one.process.call_soon(one.standby.assign, assignment)
            newest = stream.newest
            if not stream.instances and newest.relay is not None and newest.process.alive:
                newest.process.call_soon(newest.relay.assign, assignment)

    @property
    def current(self) -> list[StreamRelay]:
        """The newest incarnations that are up, and have taken over what there was to take over."""
        newest = [stream.newest for stream in self.streams.values()]
        return [
            one.relay
            for one in newest
            if one.relay is not None and one.process.alive and (one.standby is None or one.standby._accepting)
        ]
