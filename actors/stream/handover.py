"""Runs a stream's second connection beside the first, until one of the two is left.

`relay.feed.handover` decides which one stays, and `relay.feed.overlap` which of its events are new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from relay.adapters.waiting import wait_until_set
from relay.adapters.websocket import FeedConnection, Sink
from relay.feed.handover import ConnectionHandover, HandoverCause, HandoverOutcome
from relay.feed.overlap import Overlap, Read
from relay.feed.timing import DEFAULT_TIMING, FeedTiming

OUTCOME_INTERVAL_S = 0.1


class HandoverRequest(NamedTuple):
    """Why a second connection is wanted; `reason` goes into the log. A `low_priority` one can wait."""

    cause: HandoverCause
    reason: str
    low_priority: bool = True


class HandoverRun:
    """Call `run`, then `stay` or `switch`, as its outcome says.

    `on_payloads` gets every read of the connection in use. `silence_limit_s` is how long the stream may be
    silent, None for ever.
    """

    def __init__(
        self,
        request: HandoverRequest,
        old: FeedConnection,
        overlap: Overlap,
        silence_limit_s: float | None,
        on_payloads: Sink,
        timing: FeedTiming = DEFAULT_TIMING,
    ) -> None:
        self.request = request
        self.new: FeedConnection | None = None
        self.overlap = overlap
        self._old = old
        self._handover = ConnectionHandover(overlap, request.cause, silence_limit_s, timing)
        self._on_payloads = on_payloads
        self._began = time.monotonic()
        self._changed = asyncio.Event()
        # Payloads of the new connection that are no events.
        self._other_payloads: list[Read] = []
        self._given_up = False

    @property
    def took_s(self) -> float:
        return time.monotonic() - self._began

    def give_up(self) -> None:
        """Reading pauses, so no outcome can be found: the old connection stays."""
        self._given_up = True
        self._changed.set()

    async def run(self, open_second: Callable[[Sink], Awaitable[FeedConnection]]) -> HandoverOutcome:
        """Raises FeedError if the second connection cannot be opened, or ends while the first one works."""
        self._old.set_sink(self._from_old)
        if self.request.cause is HandoverCause.SILENCE:
            self._old.probe()
        self.new = await open_second(self._from_new)
        for connection in (self._old, self.new):
            connection.closed.add_done_callback(lambda _: self._changed.set())
        self._handover.opened(time.monotonic())
        while (outcome := self._outcome(self.new)) is None:
            self._changed.clear()
            await wait_until_set(self._changed, OUTCOME_INTERVAL_S)
        return outcome

    def _from_old(self, payloads: list[bytes], recv_ns: int) -> None:
        self._handover.old_heard(payloads, time.monotonic())
        self._on_payloads(payloads, recv_ns)
        self._changed.set()

    def _from_new(self, payloads: list[bytes], recv_ns: int) -> None:
        rest = self._handover.new_heard(payloads, recv_ns, time.monotonic())
        if rest:
            self._other_payloads.append(Read(rest, recv_ns))
        self._changed.set()

    def _outcome(self, new: FeedConnection) -> HandoverOutcome | None:
        now = time.monotonic()
        old_ended = self._old.closed.done()
        if old_ended:
            self._handover.old_ended(now)
        if new.closed.done():
            if not old_ended:
                raise new.closed.result()
            return HandoverOutcome.REPLACE
        if self._given_up and not old_ended:
            return HandoverOutcome.KEEP
        outcome = self._handover.outcome(now)
        if outcome is HandoverOutcome.QUIET and self._old.heard_at < self._began:
            # The old connection did not answer our ping either: it is dead, however quiet the market is.
            return HandoverOutcome.REPLACE
        return outcome

    def stay(self) -> None:
        """Continue with the old connection."""
        if self.new is not None:
            self.new.close("not needed")
        self._old.set_sink(self._on_payloads)

    def switch(self, outcome: HandoverOutcome, on_misaligned: Callable[[], None]) -> None:
        """Continue with the new connection; `on_misaligned` is called if the alignment proves wrong later."""
        assert self.new is not None
        self._old.set_sink(_discard)
        self._old.close(f"replaced: {self.request.reason}")
        for read in (*self._other_payloads, *self._reads_to_pass_on(outcome)):
            self._on_payloads(*read)
        self.new.set_sink(self._on_payloads)
        if self.overlap.skipping:
            self.new.set_sink(lambda payloads, recv_ns: self._skip(on_misaligned, payloads, recv_ns))

    def _reads_to_pass_on(self, outcome: HandoverOutcome) -> list[Read]:
        if outcome is HandoverOutcome.JOIN:
            return self.overlap.events_after_old()
        reads = self.overlap.all_events()
        # Without unique ids these events cannot be told from those that the old connection delivered.
        return [] if outcome is HandoverOutcome.UNALIGNED and not self.overlap.unique else reads

    def _skip(self, on_misaligned: Callable[[], None], payloads: list[bytes], recv_ns: int) -> None:
        """The new connection's sink until it has repeated all that the old one delivered."""
        kept = self.overlap.drop_delivered(payloads)
        if self.overlap.misaligned:
            on_misaligned()
        if not self.overlap.skipping and self.new is not None:
            self.new.set_sink(self._on_payloads)
        if kept:
            self._on_payloads(kept, recv_ns)


def _discard(payloads: list[bytes], recv_ns: int) -> None:
    """The sink of a connection that was replaced."""
