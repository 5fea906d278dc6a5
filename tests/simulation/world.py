"""Virtual time, and processes that share nothing but it: one event loop each, stepped in an order that a seed
decides.

A step runs what is ready in one process, as one turn of its event loop does. Time moves only when nobody has
anything to do. A killed process is never stepped again; a paused one keeps what comes for it, and its timers
fire late, as they do after SIGSTOP.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from socket import AF_INET, SOCK_STREAM
from typing import Any
from unittest import mock

START_NS = 1_767_225_600_000_000_000
# The last bit of a float's second: what is due at the same moment runs in one turn.
SAME_MOMENT_S = 1e-9


class Killed(SystemExit):
    """Ends a process in the middle of a call; asyncio lets it through."""


class Process(asyncio.BaseEventLoop):
    """One process, which is its event loop. `failure` is what ended it, if it was not killed."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__()
        self.world = world
        self.name = name
        self.alive = True
        self.paused = False
        # Paused for good, even if something resumes it.
        self.stopped = False
        self.failure: BaseException | None = None
        # Sockets and files of the process: called when it is killed.
        self.on_end: list[Callable[[], None]] = []
        self.set_exception_handler(self._failed)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def time(self) -> float:
        return self.world.now

    def start(self, main: Coroutine[Any, Any, None]) -> None:
        """The process ends when `main` fails; after it returned the process goes on."""
        with self.running():
            self.create_task(main).add_done_callback(self._main_done)

    def _main_done(self, main: asyncio.Task[None]) -> None:
        if not main.cancelled() and (error := main.exception()) is not None:
            self._end(error)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, OSError) and {"handle", "protocol"} & context.keys():
            self._end(error)

    def _end(self, error: BaseException) -> None:
        if self.alive:
            self.failure = error
            self.kill()

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self.world.note(f"{self.name} ends" + (f": {self.failure!r}" if self.failure else ""))
            for end in self.on_end:
                end()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = self.stopped

    def stop(self) -> None:
        self.paused = self.stopped = True

    @contextmanager
    def running(self) -> Iterator[None]:
        events._set_running_loop(self)
        try:
            yield
        finally:
            events._set_running_loop(None)

    def next_timer(self) -> float | None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        return scheduled[0]._when if scheduled else None

    def collect_due(self, now: float) -> None:
        while (when := self.next_timer()) is not None and when <= now + SAME_MOMENT_S:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            self._ready.append(handle)

    def turn(self, *, is_over: bool = False) -> None:
        """One turn of the event loop, without waiting."""
        ready = self._ready
        events._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
                if not self.alive and not is_over:
                    return
        finally:
            events._set_running_loop(None)

    # What BaseEventLoop leaves to its selector, and what must not leave this thread.

    def _process_events(self, event_list: Any) -> None: ...

    def _write_to_self(self) -> None: ...

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it belongs to the task that awaits it
            future.set_exception(error)
        return future

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        """Every name is an address here."""
        return [(AF_INET, SOCK_STREAM, 0, "", (host, port))]

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return await self.world.network.connect(self, factory, f"{host}:{port}")

    async def create_server(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        return self.world.network.listen(self, factory, host, port)


class World:
    """Everything there is in one run, for one seed."""

    def __init__(self, seed: int) -> None:
        from tests.simulation.network import Network

        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.turns = 0
        self.is_over = False
        self.processes: list[Process] = []
        self.ended: list[Process] = []
        self.trace: list[str] = []
        self.network = Network(self)
        self.on_turn: Callable[[Process], None] | None = None
        # Whose turn it is, None between turns.
        self.current: Process | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now:9.4f} {text}")

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Outside every process: the network, and what injects faults."""
        self._order += 1
        heapq.heappush(self._events, (when, self._order, act))

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        self.at(self.now + delay_s, act)

    def process(self, name: str) -> Process:
        process = Process(self, name)
        self.processes.append(process)
        return process

    def run(self, until: float, steady: Callable[[], bool] | None = None) -> bool:
        """To time `until`, or to the first moment at which `steady` holds; returns whether it did."""
        while True:
            if self._step():
                continue
            if steady is not None and steady():
                return True
            due = self._next_due()
            if due is None or due > until:
                self.now = until
                return False
            self.now = max(self.now, due)
            self._collect()

    def _step(self) -> bool:
        ready = [process for process in self.processes if process._ready and not process.paused]
        if not ready:
            return False
        process = ready[int(self.rng.random() * len(ready))]
        self.current = process
        self.turns += 1
        try:
            process.turn()
        except Killed:
            process.kill()
        finally:
            self.current = None
        if not process.alive:
            self._bury()
        elif self.on_turn is not None:
            self.on_turn(process)
        return True

    def _next_due(self) -> float | None:
        first = self._events[0][0] if self._events else None
        for process in self.processes:
            if (
                not process.paused
                and (when := process.next_timer()) is not None
                and (first is None or when < first)
            ):
                first = when
        return first

    def _collect(self) -> None:
        while self._events and self._events[0][0] <= self.now + SAME_MOMENT_S:
            heapq.heappop(self._events)[2]()
        for process in self.processes:
            if process.alive and not process.paused:
                process.collect_due(self.now)
        self._bury()

    def _bury(self) -> None:
        dead = [process for process in self.processes if not process.alive]
        for process in dead:
            self.processes.remove(process)
        self.ended += dead

    def clear_up(self) -> None:
        """Let every task end, where nothing that they do has an effect any more."""
        self.is_over = True
        self.network.cut_off()
        for process in (*self.processes, *self.ended):
            process.set_exception_handler(lambda loop, context: None)
            self._clear_up(process)

    def _clear_up(self, process: Process) -> None:
        for _ in range(200):
            with process.running():
                left = asyncio.all_tasks(process)
                for task in left:
                    task.cancel()
            if not left:
                break
            # Ten seconds later nobody waits for anything any more.
            self.now += 10.0
            process.collect_due(self.now)
            try:
                process.turn(is_over=True)
            except Killed:
                continue
        process.close()


@contextmanager
def installed(world: World) -> Iterator[None]:
    """The clocks and the dice of this interpreter are those of `world`."""
    dice = random.getstate()
    random.seed(world.seed)
    seed_by = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed_by(self, random.getrandbits(64) if a is None else a, version)

    with (
        mock.patch.object(time, "monotonic", lambda: world.now),
        mock.patch.object(time, "time", lambda: START_NS / 1e9 + world.now),
        mock.patch.object(time, "time_ns", lambda: START_NS + int(world.now * 1e9)),
        mock.patch.object(random.Random, "seed", seed),
    ):
        try:
            yield
        finally:
            random.setstate(dice)
