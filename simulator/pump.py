"""Drives the channels: makes the events that are due and sleeps until the next one is."""

from __future__ import annotations

import asyncio
import time
from math import inf

from simulator.catalog import Catalog
from simulator.channel import Channel

# How often streams without listeners advance their ids: rarely, since no client sees when.
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
        """Run a pass soon, because something changed."""
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

        Returns whether one of them has more events due than a quantum, and when the next round can send
        anything: `inf` if a client has to resume or a channel has to be opened first.
        """
        now_s = self.now_s()
        unseen = now_s >= self._unseen_due_s
        behind, next_s = False, inf
        for channel in tuple(self._catalog.channels.values()):
            if channel.due_s <= now_s and (channel.has_listeners or unseen):
                behind |= channel.step(self.now_s(), time.time_ns(), self._quantum)
            next_s = min(next_s, self._next_useful_s(channel, now_s))
        if unseen and not behind:
            self._unseen_due_s = now_s + _UNSEEN_S
        return behind, next_s

    def _next_useful_s(self, channel: Channel, now_s: float) -> float:
        if not channel.has_listeners:
            return channel.due_s if channel.due_s == inf else max(channel.due_s, self._unseen_due_s)
        return inf if channel.due_s <= now_s and channel.stalled else channel.due_s
