"""What Ray sees of an actor that reads a stream, be it the only one or one leg of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from actors.runtime.loop import ActorLoop
from relay.config import StreamSettings
from relay.model.assignment import Assignment
from relay.model.stats import StreamStats

# What `drain` may take beyond its own deadline.
_GRACE_S = 5.0


class Reader(Protocol):
    """All of it happens on one event loop."""

    async def run(self) -> None: ...
    def stats(self) -> StreamStats: ...
    def assign(self, assignment: Assignment) -> None: ...
    async def drain(self, deadline_s: float) -> StreamStats: ...


class StreamActorFacade:
    """Its methods may be called from any thread. `make` is called in the thread of the actor's loop.

    None of them is a coroutine: Ray would run all of them on one loop, where a drain holds up every look.
    """

    def __init__(self, settings: StreamSettings, make: Callable[[], Reader]) -> None:
        self._name = settings.spec.name
        self._loop = ActorLoop(f"stream {settings.spec.key}")
        self._reader: Reader | None = None

        async def run() -> None:
            self._reader = make()
            await self._reader.run()

        self._loop.start(run)

    def __repr__(self) -> str:
        return f"Stream({self._name})"

    def stats(self) -> StreamStats:
        return self._loop.read(lambda: self._started().stats())

    def assign(self, assignment: Assignment) -> None:
        self._loop.read(lambda: self._started().assign(assignment))

    def drain(self, deadline_s: float) -> StreamStats:
        """Stop reading, flush, leave the rest in the journal; the actor stays up to answer `stats`."""

        async def drain() -> StreamStats:
            return await self._started().drain(deadline_s)

        return self._loop.call(drain()).result(deadline_s + _GRACE_S)

    def stop(self) -> None:
        """For a plain instance in a test; Ray ends the process instead."""
        self._loop.stop()

    def _started(self) -> Reader:
        # The loop runs `run` before anything that was handed to it later.
        assert self._reader is not None
        return self._reader
