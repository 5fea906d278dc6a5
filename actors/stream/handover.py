"""A second connection of one stream beside the first, until one of the two is left.

Which one, and with which events, `relay.feed.handover` and `relay.feed.overlap` decide; here the sockets
are moved.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from relay.adapters.websocket import FeedConnection, Sink
from relay.feed.handover import ConnectionHandover, HandoverCause, HandoverOutcome
from relay.feed.overlap import Overlap, Read

OUTCOME_INTERVAL_S = 0.1


class HandoverRequest(NamedTuple):
    """Why a second connection is wanted; `reason` goes into the log. A `spare` one can wait."""

    cause: HandoverCause
    reason: str
    spare: bool = True


class HandoverRun:
    """`run` to the verdict, then `stay` or `switch`; `on_payloads` gets every read that counts."""

    def __init__(
        self,
        wish: HandoverRequest,
        old: FeedConnection,
        overlap: Overlap,
        silence_limit_s: float | None,
        on_payloads: Sink,
    ) -> None:
        self.request = wish
        self.new: FeedConnection | None = None
        self.overlap = overlap
        self._old = old
        self._succession = ConnectionHandover(overlap, wish.cause, silence_limit_s)
        self._on_payloads = on_payloads
        self._began = time.monotonic()
        self._stirred = asyncio.Event()
        # What the new connection brought that is no event.
        self._events_after_switch: list[Read] = []
        self._given_up = False

    @property
    def took_s(self) -> float:
        return time.monotonic() - self._began

    def give_up(self) -> None:
        """Nobody reads for a while, so that no verdict can be found."""
        self._given_up = True
        self._stirred.set()

    async def run(self, open_second: Callable[[Sink], Awaitable[FeedConnection]]) -> HandoverOutcome:
        """Raises FeedError if no second connection can be had, or if it ends while the first one works."""
        self._old.set_sink(self._from_old)
        if self.request.cause is HandoverCause.SILENCE:
            self._old.probe()
        self.new = await open_second(self._from_new)
        for connection in (self._old, self.new):
            connection.closed.add_done_callback(lambda _: self._stirred.set())
        self._succession.opened(time.monotonic())
        while (verdict := self._outcome(self.new)) is None:
            self._stirred.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(OUTCOME_INTERVAL_S):
                    await self._stirred.wait()
        return verdict

    def _from_old(self, payloads: list[bytes], recv_ns: int) -> None:
        self._succession.old_heard(payloads, time.monotonic())
        self._on_payloads(payloads, recv_ns)
        self._stirred.set()

    def _from_new(self, payloads: list[bytes], recv_ns: int) -> None:
        rest = self._succession.new_heard(payloads, recv_ns, time.monotonic())
        if rest:
            self._events_after_switch.append(Read(rest, recv_ns))
        self._stirred.set()

    def _outcome(self, new: FeedConnection) -> HandoverOutcome | None:
        now = time.monotonic()
        over = self._old.closed.done()
        if over:
            self._succession.old_ended(now)
        if new.closed.done():
            if not over:
                raise new.closed.result()
            return HandoverOutcome.REPLACE
        if self._given_up and not over:
            return HandoverOutcome.KEEP
        verdict = self._succession.outcome(now)
        if verdict is HandoverOutcome.QUIET and self._old.heard_at < self._began:
            # It did not answer the probe either.
            return HandoverOutcome.REPLACE
        return verdict

    def stay(self) -> None:
        """Go on with the old connection."""
        if self.new is not None:
            self.new.close("not needed")
        self._old.set_sink(self._on_payloads)

    def switch(self, verdict: HandoverOutcome, on_torn: Callable[[], None]) -> None:
        """Go on with the new connection; `on_torn` if it turns out later that the two did not fit."""
        assert self.new is not None
        self._old.set_sink(_discard)
        self._old.close(f"replaced: {self.request.reason}")
        given_up = verdict is HandoverOutcome.UNALIGNED and not self.overlap.unique
        reads = (
            self.overlap.events_after_old() if verdict is HandoverOutcome.JOIN else self.overlap.all_events()
        )
        for read in (*self._events_after_switch, *([] if given_up else reads)):
            self._on_payloads(*read)
        self.new.set_sink(self._on_payloads)
        if self.overlap.skipping:
            self.new.set_sink(lambda payloads, recv_ns: self._skip(on_torn, payloads, recv_ns))

    def _skip(self, on_torn: Callable[[], None], payloads: list[bytes], recv_ns: int) -> None:
        """Until the new connection has brought all that the old one delivered."""
        kept = self.overlap.drop_delivered(payloads)
        if self.overlap.misaligned:
            on_torn()
        if not self.overlap.skipping and self.new is not None:
            self.new.set_sink(self._on_payloads)
        if kept:
            self._on_payloads(kept, recv_ns)


def _discard(payloads: list[bytes], recv_ns: int) -> None:
    """For what a connection brings after its end."""
