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
from relay.feed.handover import Cause, Succession, Verdict
from relay.feed.overlap import Overlap, Read

VERDICT_EVERY_S = 0.1


class Wish(NamedTuple):
    """Why a second connection is wanted; `reason` goes into the log. A `spare` one can wait."""

    cause: Cause
    reason: str
    spare: bool = True


class Changeover:
    """`run` to the verdict, then `stay` or `switch`; `on_payloads` gets every read that counts."""

    def __init__(
        self,
        wish: Wish,
        old: FeedConnection,
        overlap: Overlap,
        silence_limit_s: float | None,
        on_payloads: Sink,
    ) -> None:
        self.wish = wish
        self.new: FeedConnection | None = None
        self.overlap = overlap
        self._old = old
        self._succession = Succession(overlap, wish.cause, silence_limit_s)
        self._on_payloads = on_payloads
        self._began = time.monotonic()
        self._stirred = asyncio.Event()
        # What the new connection brought that is no event.
        self._aside: list[Read] = []
        self._given_up = False

    @property
    def took_s(self) -> float:
        return time.monotonic() - self._began

    def give_up(self) -> None:
        """Nobody reads for a while, so that no verdict can be found."""
        self._given_up = True
        self._stirred.set()

    async def run(self, open_second: Callable[[Sink], Awaitable[FeedConnection]]) -> Verdict:
        """Raises FeedError if no second connection can be had, or if it ends while the first one works."""
        self._old.divert(self._from_old)
        if self.wish.cause is Cause.SILENCE:
            self._old.probe()
        self.new = await open_second(self._from_new)
        for connection in (self._old, self.new):
            connection.closed.add_done_callback(lambda _: self._stirred.set())
        self._succession.opened(time.monotonic())
        while (verdict := self._verdict(self.new)) is None:
            self._stirred.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(VERDICT_EVERY_S):
                    await self._stirred.wait()
        return verdict

    def _from_old(self, payloads: list[bytes], recv_ns: int) -> None:
        self._succession.old_heard(payloads, time.monotonic())
        self._on_payloads(payloads, recv_ns)
        self._stirred.set()

    def _from_new(self, payloads: list[bytes], recv_ns: int) -> None:
        rest = self._succession.new_heard(payloads, recv_ns, time.monotonic())
        if rest:
            self._aside.append(Read(rest, recv_ns))
        self._stirred.set()

    def _verdict(self, new: FeedConnection) -> Verdict | None:
        now = time.monotonic()
        over = self._old.closed.done()
        if over:
            self._succession.old_ended(now)
        if new.closed.done():
            if not over:
                raise new.closed.result()
            return Verdict.TAKE_OVER
        if self._given_up and not over:
            return Verdict.KEEP
        verdict = self._succession.verdict(now)
        if verdict is Verdict.QUIET and self._old.heard_at < self._began:
            # It did not answer the probe either.
            return Verdict.TAKE_OVER
        return verdict

    def stay(self) -> None:
        """Go on with the old connection."""
        if self.new is not None:
            self.new.close("not needed")
        self._old.divert(self._on_payloads)

    def switch(self, verdict: Verdict, on_torn: Callable[[], None]) -> None:
        """Go on with the new connection; `on_torn` if it turns out later that the two did not fit."""
        assert self.new is not None
        self._old.divert(_nowhere)
        self._old.close(f"replaced: {self.wish.reason}")
        given_up = verdict is Verdict.GIVE_UP and not self.overlap.unique
        reads = self.overlap.join() if verdict is Verdict.JOIN else self.overlap.remainder()
        for read in (*self._aside, *([] if given_up else reads)):
            self._on_payloads(*read)
        self.new.divert(self._on_payloads)
        if self.overlap.skipping:
            self.new.divert(lambda payloads, recv_ns: self._skip(on_torn, payloads, recv_ns))

    def _skip(self, on_torn: Callable[[], None], payloads: list[bytes], recv_ns: int) -> None:
        """Until the new connection has brought all that the old one delivered."""
        kept = self.overlap.pass_on(payloads)
        if self.overlap.torn:
            on_torn()
        if not self.overlap.skipping and self.new is not None:
            self.new.divert(self._on_payloads)
        if kept:
            self._on_payloads(kept, recv_ns)


def _nowhere(payloads: list[bytes], recv_ns: int) -> None:
    """For what a connection brings after its end."""
