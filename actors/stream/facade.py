"""What Ray sees of an actor that reads a stream, whether the stream has a standby instance or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from actors.runtime.loop import ActorLoop
from relay.config import StreamSettings
from relay.model.assignment import Assignment
from relay.model.stats import StreamStats

# So much longer than its deadline may a `drain` take.
_GRACE_S = 5.0


class Relay(Protocol):
    """Called on one event loop."""

    async def run(self) -> None: ...
    def stats(self) -> StreamStats: ...
    def assign(self, assignment: Assignment) -> None: ...
    async def drain(self, deadline_s: float) -> StreamStats: ...


class StreamActorFacade:
    """Its methods may be called from any thread. `make` is called in the thread of the actor's loop.

    None of them is a coroutine: Ray would run all of them on one loop, where a `drain` would hold up every
    `stats`.
    """

    def __init__(self, settings: StreamSettings, make: Callable[[], Relay]) -> None:
        self._name = settings.spec.name
        self._loop = ActorLoop(f"stream {settings.spec.key}")
        self._relay: Relay | None = None

        async def run() -> None:
            self._relay = make()
            await self._relay.run()

        self._loop.start(run)

    def __repr__(self) -> str:
        return f"Stream({self._name})"

    def stats(self) -> StreamStats:
        return self._loop.read(lambda: self._started().stats())

    def assign(self, assignment: Assignment) -> None:
        self._loop.read(lambda: self._started().assign(assignment))

    def drain(self, deadline_s: float) -> StreamStats:
        """Stop reading and send what is held until the deadline; the rest stays in the journal. The actor
        stays up to answer `stats`."""

        async def drain() -> StreamStats:
            return await self._started().drain(deadline_s)

        return self._loop.call(drain()).result(deadline_s + _GRACE_S)

    def stop(self) -> None:
        """For a plain instance in a test; Ray ends the process instead."""
        self._loop.stop()

    def _started(self) -> Relay:
        # The loop runs `run` before anything that is handed to it later.
        assert self._relay is not None
        return self._relay
