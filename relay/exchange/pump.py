"""The exchange's clock: hands each channel the time, and sleeps until the next event is due."""

from __future__ import annotations

import asyncio
import time
from math import inf

from relay.exchange.catalog import Catalog
from relay.exchange.channel import Channel

# Streams without listeners only advance their ids; nobody sees when.
_UNSEEN_S = 0.05


class Pump:
    """Wakes at most every `tick_s`, and not at all while nothing can be sent.

    Each pass gives every channel at most `quantum` events, so a flood delays the others by one quantum.
    """

    def __init__(self, catalog: Catalog, tick_s: float, quantum: int) -> None:
        self._catalog = catalog
        self._tick_s = tick_s
        self._quantum = quantum
        self._origin_s = time.monotonic()
        self._unseen_due_s = 0.0
        self._waiter: asyncio.Future[None] | None = None

    def now_s(self) -> float:
        return time.monotonic() - self._origin_s

    def wake(self) -> None:
        """Something changed: look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run(self) -> None:
        while True:
            await self._sleep(self._pass())

    def _pass(self) -> float:
        """One round over the channels; returns when the next one is worth while."""
        unseen = self.now_s() >= self._unseen_due_s
        if unseen:
            self._unseen_due_s = self.now_s() + _UNSEEN_S
        next_s = inf
        for channel in tuple(self._catalog.channels.values()):
            next_s = min(next_s, self._stepped(channel, unseen=unseen))
        return next_s

    def _stepped(self, channel: Channel, *, unseen: bool) -> float:
        now_s = self.now_s()
        if channel.next_s <= now_s and (unseen or channel.listened):
            channel.step(now_s, time.time_ns(), self._quantum)
        if channel.stalled:
            return inf
        next_s = channel.next_s
        if channel.listened or next_s == inf:
            return next_s
        # Behind even so: the next round is not to wait for the pause between looks.
        if unseen and next_s <= now_s:
            self._unseen_due_s = 0.0
            return next_s
        return max(next_s, self._unseen_due_s)

    async def _sleep(self, until_s: float) -> None:
        delay_s = until_s - self.now_s()
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None
        if delay_s < inf:
            timer = loop.call_later(max(delay_s, self._tick_s), self.wake)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
