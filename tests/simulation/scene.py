"""One seed: a world with an exchange, NATS and Sluice in it, what goes wrong in it, and what must hold."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

from relay.config import Config, parse_config
from relay.errors import SluiceError, SteppedDown
from relay.journal import journal as journal_module
from relay.journal.journal import Journal
from tests.simulation import invariants
from tests.simulation.disk import Disk
from tests.simulation.exchange_model import BOOK, DEPTH, TRADE, ExchangeModel, Market
from tests.simulation.faults import FAULTS, Fault
from tests.simulation.nats_model import NatsModel
from tests.simulation.relay_model import RelayModel, StreamActors
from tests.simulation.world import Process, World, installed

CALM_S, FAULTY_S = 0.5, 6.0
# After the last fault: every stream delivers again, and nothing is held any more.
STEADY_S = 60.0
LAST_S = 5.0
SIDE = "SLUICE_SIDE"


@dataclass(frozen=True)
class Outcome:
    """`problems` is empty when everything held. `events` counts what the exchange made, `missing` those that
    are not stored and came behind the first one that is."""

    seed: int
    problems: tuple[str, ...]
    trace: tuple[str, ...]
    events: int
    missing: int
    virtual_s: float


class Scene:
    """Faults reach into it; `play` runs it. With `critical` each stream has two instances."""

    def __init__(
        self, seed: int, folder: Path, faults: Sequence[Fault] = FAULTS, *, critical: bool = False
    ) -> None:
        self._faults = faults
        self.world = world = World(seed)
        self.dice = world.rng
        self.disk = Disk(world)
        self.nats = NatsModel(world)
        self.exchange = ExchangeModel(world)
        self.problems: list[str] = []
        self.faults_until = CALM_S
        config = _config(self.dice.choice((8, 40, 5000)))
        changes = {"journal_directory": folder, "critical": critical}
        streams = [one.model_copy(update=changes) for one in config.streams]
        window_s = self.dice.choice((0.5, 3.0, 120.0))
        self.nats.add(SIDE, ("sluice.loss.>", "sluice.rejected.>"), 120.0)
        chosen = self.dice.sample(streams, self.dice.choice((1, 1, 1, 2)))
        for one in chosen:
            spec = one.spec
            self.nats.add(spec.jetstream_name, (one.stored_subject, spec.fence_subject), window_s)
            self.exchange.open_market(spec.name, self.dice.choice((0.15, 0.5)))
        self.nats.start()
        self.relay = RelayModel(world, self.disk, config, folder, publishers=2)
        for one in chosen:
            self.relay.start_stream(one, self.dice.choice(("p0", "p1")))
        world.on_turn = self._balance

    # What faults are made of.

    def a_stream(self) -> StreamActors:
        return self.dice.choice(list(self.relay.streams.values()))

    def a_publisher(self) -> Process:
        return self.relay.publishers[self.dice.choice(sorted(self.relay.publishers))]

    def a_market(self) -> Market:
        return self.dice.choice(list(self.exchange.markets.values()))

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """A part of a fault: the faults are not over before it is done."""
        self.faults_until = max(self.faults_until, self.world.now + delay_s)
        self.world.after(delay_s, act)

    def pause(self, process: Process, duration_s: float) -> None:
        process.pause()
        self.after(duration_s, process.resume)

    def hold(self, source: str, target: str, duration_s: float) -> None:
        self.world.network.hold(source, target)
        self.after(duration_s, lambda: self.world.network.release(source, target))

    def part(self, one: str, other: str, duration_s: float) -> None:
        self.hold(one, other, duration_s)
        self.hold(other, one, duration_s)

    def stop_nats(self, duration_s: float) -> None:
        if self.nats.process.alive:
            self.nats.process.kill()
            self.after(duration_s, self.nats.start)

    # One run.

    def play(self) -> None:
        for _ in range(self.dice.randrange(1, 6)):
            self._plan()
        self._play()

    def play_one_fault(self) -> None:
        """Not before every stream has a second instance that could take over."""
        if not self.world.run(STEADY_S, self._all_ready):
            self.problems.append(
                f"not every stream has a standby instance after {STEADY_S:g} s: {self._state()}"
            )
        self._plan()
        self._play()
        # The exchange's last events may still be on their way to an instance.
        self.world.run(self.world.now + LAST_S, lambda: not self._missing())

    def _missing(self) -> int:
        markets = self.exchange.markets
        streams = self.relay.streams.values()
        return sum(invariants.missing(one, markets[one.settings.spec.name], self.nats) for one in streams)

    def _plan(self) -> None:
        fault = self.dice.choice(self._faults)
        self.after(self.dice.uniform(CALM_S, FAULTY_S), lambda: self._fail(fault))

    def _play(self) -> None:
        world = self.world
        while self.faults_until > world.now:
            world.run(self.faults_until)
        calm_from = world.now
        world.note("the faults are over")
        if not world.run(calm_from + STEADY_S, lambda: self._all_deliver(calm_from)):
            self.problems.append(
                f"not every stream delivers {STEADY_S:g} s after the last fault: {self._state()}"
            )
        self.exchange.talking = False
        if not world.run(world.now + STEADY_S, self._all_settled):
            self.problems.append(f"something is held {STEADY_S:g} s after the last event: {self._state()}")
        for process in (*world.processes, *world.ended):
            self.problems += [f"{process.name} failed: {error!r}" for error in _unexpected(process.failure)]
        for stream in self.relay.streams.values():
            market = self.exchange.markets[stream.settings.spec.name]
            self.problems += invariants.violations(stream, market, self.nats, self.disk)

    def outcome(self) -> Outcome:
        world, missing = self.world, self._missing()
        events = sum(market.number for market in self.exchange.markets.values())
        return Outcome(world.seed, tuple(self.problems), tuple(world.trace), events, missing, world.now)

    def _fail(self, fault: Callable[[Scene], None]) -> None:
        self.world.note(fault.__name__)
        fault(self)

    def _balance(self, process: Process) -> None:
        relay = self.relay.by_process.get(process)
        if relay is not None and (problem := invariants.imbalance(relay.window)):
            self.problems.append(f"{self.world.now:.4f} {process.name}: {problem}")

    def _all_deliver(self, since: float) -> bool:
        relays = self.relay.current
        return len(relays) == len(self.relay.streams) and all(
            relay.links.linked and relay.feed.last_data_at is not None and relay.feed.last_data_at > since
            for relay in relays
        )

    def _all_ready(self) -> bool:
        pairs = self.relay.streams.values()
        return self._all_deliver(0.0) and all(one.instances and one.standby.ready for one in pairs)

    def _all_settled(self) -> bool:
        relays = self.relay.current
        return len(relays) == len(self.relay.streams) and all(
            relay.window.empty and not relay.links.unwritten for relay in relays
        )

    def _state(self) -> str:
        return "; ".join(
            f"{relay.settings.spec.name} {relay.window!r} linked={relay.links.linked}"
            f" publisher={relay.links.publisher}"
            for relay in self.relay.current
        )


def _unexpected(failure: BaseException | None) -> Iterator[BaseException]:
    """Typed errors end a process too, as they should: its next incarnation does better, or is not needed."""
    if isinstance(failure, BaseExceptionGroup):
        for each in failure.exceptions:
            yield from _unexpected(each)
    elif failure is not None and not isinstance(failure, (SluiceError, SteppedDown)):
        yield failure


@cache
def _config(max_messages: int) -> Config:
    text = f"""
exchange: {{venue: usdm, url: "ws://exchange.test:9001"}}
nats: {{servers: ["nats://nats.test:4222"]}}
queue: {{max_messages: {max_messages}}}
journal: {{directory: /nowhere, max_bytes: 64MiB}}
shards: [{TRADE}, {DEPTH}, {{stream: {BOOK}, queue: {{overflow: spill}}}}]
"""
    return parse_config(text, {})


@contextmanager
def _small_segments() -> Iterator[None]:
    with (
        mock.patch.dict(Journal.__init__.__kwdefaults__, segment_bytes=4_000),
        mock.patch.object(journal_module, "ROLL_BYTES", 1_000),
    ):
        yield


def play(
    seed: int,
    mutant: Callable[[Scene], AbstractContextManager[object]] | None = None,
    faults: Sequence[Fault] = FAULTS,
    *,
    critical: bool = False,
    only_one: bool = False,
) -> Outcome:
    """Run one seed, to its end; with `mutant`, which switches something off. With `only_one` there is a
    single fault, to critical streams whose instances are ready."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder, _small_segments():
        scene = Scene(seed, Path(folder), faults, critical=critical)
        broken = nullcontext() if mutant is None else mutant(scene)
        with installed(scene.world), scene.disk.installed(), broken:
            try:
                scene.play_one_fault() if only_one else scene.play()
                return scene.outcome()
            finally:
                scene.world.clear_up()
                scene.relay.close()


def _memory() -> str | None:
    """A folder in memory, where there is one: thousands of small files come and go."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
