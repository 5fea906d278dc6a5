"""The exchange's clock: hands each channel the time, and sleeps until the next event is due."""

from __future__ import annotations

import asyncio
import time
from math import inf

from simulator.catalog import Catalog
from simulator.channel import Channel

# Streams without listeners only advance their ids; nobody sees when.
_UNSEEN_S = 0.05


class Pump:
    """Wakes at most every `tick_s`, and not at all while nothing can be sent.

    Each pass gives every channel at most `quantum` events, so a flood delays the others by one quantum.
    Passes are timer callbacks: a task would cost each of them a second round of the event loop.
    """

    def __init__(self, catalog: Catalog, tick_s: float, quantum: int) -> None:
        self._catalog = catalog
        self._tick_s = tick_s
        self._quantum = quantum
        self._origin_s = time.monotonic()
        self._unseen_due_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._failed: asyncio.Future[None] | None = None

    def now_s(self) -> float:
        return time.monotonic() - self._origin_s

    async def run(self) -> None:
        """Until cancelled, or until a pass raises."""
        self._loop = asyncio.get_running_loop()
        self._failed = self._loop.create_future()
        self.wake()
        try:
            await self._failed
        finally:
            self._loop = None
            self._set_timer(None)

    def wake(self) -> None:
        """Something changed: look again soon."""
        if self._loop is not None:
            self._set_timer(self._loop.call_soon(self._turn))

    def _turn(self) -> None:
        loop = self._loop
        assert loop is not None
        try:
            behind, due_s = self._pass()
        except Exception as error:  # noqa: BLE001 - it ends the pump and is raised where the pump is awaited
            if self._failed is not None and not self._failed.done():
                self._failed.set_exception(error)
            return
        if behind:
            self._set_timer(loop.call_soon(self._turn))
        elif due_s < inf:
            self._set_timer(loop.call_later(max(due_s - self.now_s(), self._tick_s), self._turn))

    def _set_timer(self, timer: asyncio.TimerHandle | asyncio.Handle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _pass(self) -> tuple[bool, float]:
        """One round over the channels.

        Returns whether a quantum was too small for one of them, and when the next round is worth while:
        `inf` if something else must happen first.
        """
        now_s = self.now_s()
        unseen = now_s >= self._unseen_due_s
        behind, next_s = False, inf
        for channel in tuple(self._catalog.channels.values()):
            if channel.due_s <= now_s and (channel.listened or unseen):
                behind |= channel.step(self.now_s(), time.time_ns(), self._quantum)
            next_s = min(next_s, self._worth_while_s(channel, now_s))
        if unseen and not behind:
            self._unseen_due_s = now_s + _UNSEEN_S
        return behind, next_s

    def _worth_while_s(self, channel: Channel, now_s: float) -> float:
        if not channel.listened:
            return channel.due_s if channel.due_s == inf else max(channel.due_s, self._unseen_due_s)
        return inf if channel.due_s <= now_s and channel.stalled else channel.due_s
