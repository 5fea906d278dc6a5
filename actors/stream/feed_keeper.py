"""Keeps one stream's WebSocket connected, for ever: its turn to connect, back-off, successors and witnesses.

A connection that is to end gets a successor first, and one that is silent a witness, before it is closed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress

from actors.stream.connect_gate import ConnectGate
from actors.stream.handover import HandoverRequest, HandoverRun
from relay.adapters.websocket import FeedConnection, Sink, open_feed
from relay.config import StreamSettings
from relay.errors import FeedError, HandshakeRefusedError
from relay.feed.address_fallback import AddressFallback
from relay.feed.handover import HandoverCause, HandoverOutcome, rotation_age_s
from relay.feed.overlap import Overlap, event_key
from relay.feed.silence import SilenceDetector
from relay.primitives.backoff import Backoff

_log = logging.getLogger(__name__)

BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 30.0
# A successor by age that could not be had, or gave nothing, is tried again after this long.
ROTATE_AGAIN_S = 60.0
# Whether an exchange passes events over for a reader that takes none, nobody writes: rather than not to know,
# end the connection, and what is missing will be told.
PAUSE_LIMIT_S = 10.0


class FeedKeeper:
    """`on_payloads(payloads, recv_ns)` gets every read; `on_disconnected()` is told of every change of socket
    across which events may be missing.

    Only data proves a stream: `delivering` turns true, and the back-off starts anew, when the owner calls
    `delivered`. `subscribed_at_ns` and `first_data_at_ns` are Unix times of the first connection, 0 before.
    """

    def __init__(
        self,
        settings: StreamSettings,
        gate: ConnectGate,
        on_payloads: Sink,
        on_disconnected: Callable[[], None],
    ) -> None:
        self.delivering = False
        self.paused = False
        self._lulled = False
        # Its connections can wait: others need the connect budget more.
        self.spare = False
        self.reconnects = self.rotations = self.silences = self.unaligned = 0
        self.last_error = ""
        self.last_data_at: float | None = None
        self.subscribed_at_ns = self.first_data_at_ns = 0
        self._settings = settings
        self._gate = gate
        self._on_payloads = on_payloads
        self._on_disconnected = on_disconnected
        self._backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S, random.Random())
        self._second_backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S, random.Random())
        self._silence = SilenceDetector(settings.spec.silence_limit_s)
        self._event_key = event_key(settings.spec)
        self._rotation_age_s = rotation_age_s(settings.spec.key, settings.rotate_after_s)
        self._last_address = AddressFallback()
        self._connection: FeedConnection | None = None
        self._change: HandoverRun | None = None
        self._request: HandoverRequest | None = None
        self._stirred = asyncio.Event()
        self._needed = asyncio.Event()
        self._rotate_at = self._suspect_at = self._paused_at = 0.0
        self._resumed = asyncio.Event()
        self._resumed.set()

    async def run(self) -> None:
        while True:
            await self._resumed.wait()
            wait_s = await self._one_connection()
            self.reconnects += 1
            await self._wait_or_needed(wait_s)

    async def _wait_or_needed(self, seconds: float) -> None:
        self._needed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._needed.wait()

    async def _one_connection(self) -> float:
        """From a connection to the end of its last successor; returns how long to wait before the next."""
        try:
            self._settle_on(await self._open(self._on_payloads, low_priority=self.spare))
            error = await self._attend()
        except FeedError as refused:
            error = refused
        self.last_error = str(error)
        self._silence.stop()
        if self.delivering:
            self.delivering = False
            self._on_disconnected()
        self._connection = None
        wish, self._request = self._request, None
        at_once = wish is not None and wish.cause is HandoverCause.SHUTDOWN
        wait_s = 0.0 if at_once else max(self._backoff.next_s(), error.retry_after_s or 0.0)
        _log.warning("feed ended: %s; next attempt in %.2f s", error, wait_s)
        return wait_s

    async def _open(self, sink: Sink, *, low_priority: bool) -> FeedConnection:
        permit = await self._gate.admit(spare=low_priority)
        try:
            connection = await self._reach(sink)
        except FeedError as error:
            await self._gate.settle(permit, error)
            raise
        connection.closed.add_done_callback(lambda _: self._stirred.set())
        try:
            await self._gate.settle(permit, None)
        except asyncio.CancelledError:
            connection.close("stopping")
            raise
        if self.paused:
            connection.pause()
        return connection

    async def _reach(self, sink: Sink) -> FeedConnection:
        address = self._last_address.next_address
        if address is not None:
            _log.warning("trying %s, where the exchange was before", address)
        try:
            connection = await open_feed(self._settings.url, sink, address=address)
        except FeedError as error:
            self._last_address.failed(answered=isinstance(error, HandshakeRefusedError))
            raise
        self._last_address.reached(connection.address)
        return connection

    def _settle_on(self, connection: FeedConnection) -> None:
        now = time.monotonic()
        self._connection = connection
        self._rotate_at = now + self._rotation_age_s
        self._silence.begin(now)
        self.subscribed_at_ns = self.subscribed_at_ns or time.time_ns()

    async def _attend(self) -> FeedError:
        """Fulfils wishes until a connection ends without a successor."""
        while True:
            assert self._connection is not None
            if self._connection.closed.done():
                return self._connection.closed.result()
            if self._request is not None and not self.paused:
                await self._fulfil(self._request, self._connection)
            else:
                self._stirred.clear()
                await self._stirred.wait()

    async def _fulfil(self, wish: HandoverRequest, old: FeedConnection) -> None:
        overlap = Overlap(self._event_key, unique=bool(self._settings.spec.id_key))
        limit_s = self._silence.limit_s()
        change = self._change = HandoverRun(wish, old, overlap, limit_s, self._on_payloads)
        _log.info("opening a second connection: %s", wish.reason)
        try:
            verdict = await change.run(lambda sink: self._open(sink, low_priority=wish.spare))
        except asyncio.CancelledError:
            change.stay()
            raise
        except FeedError as error:
            change.stay()
            await self._stay(wish, old, error)
        else:
            self._request = self._change = None
            self._conclude(change, verdict)
        finally:
            self._change = None

    def _conclude(self, change: HandoverRun, verdict: HandoverOutcome) -> None:
        assert change.new is not None
        self._second_backoff.reset()
        if verdict is HandoverOutcome.KEEP or verdict is HandoverOutcome.QUIET:
            change.stay()
            self._rotate_at = max(self._rotate_at, time.monotonic() + ROTATE_AGAIN_S)
            if verdict is HandoverOutcome.QUIET:
                self._silence.confirm_quiet(time.monotonic())
            _log.info("closed the second connection again (%s): %s", change.request.reason, verdict.value)
            return
        self._settle_on(change.new)
        if verdict is not HandoverOutcome.JOIN:
            self._tear(change, change.request.reason)
        change.switch(verdict, lambda: self._tear(change, "the overlap broke off"))
        if verdict is HandoverOutcome.JOIN:
            self.rotations += 1
            _log.info(
                "replaced the connection (%s): %d events came on both and were taken once, in %.2f s;"
                " 0 lost, 0 repeated", change.request.reason, change.overlap.removed, change.took_s,
            )  # fmt: skip

    def _tear(self, change: HandoverRun, reason: str) -> None:
        """Count and announce that events may be missing; where ids tell, they say which."""
        if change.request.cause is HandoverCause.SILENCE:
            self.silences += 1
        elif not change.overlap.unique:
            self.unaligned += 1
        self.last_error = f"the connection was replaced without an overlap: {reason}"
        _log.warning("%s; it took %.2f s, and events may be missing", self.last_error, change.took_s)
        self._on_disconnected()

    async def _stay(self, wish: HandoverRequest, old: FeedConnection, error: FeedError) -> None:
        """No second connection could be had: go on with the old one, and try again later."""
        self.last_error = f"{wish.reason}, and no second connection: {error}"
        _log.warning("%s", self.last_error)
        wait_s = max(self._second_backoff.next_s(), error.retry_after_s or 0.0)
        if wish.cause is HandoverCause.SHUTDOWN:
            await asyncio.wait({old.closed}, timeout=wait_s)
            return
        self._request = None
        now = time.monotonic()
        self._suspect_at = now + wait_s
        self._rotate_at = max(self._rotate_at, now + ROTATE_AGAIN_S)

    def delivered(self) -> None:
        """An event was accepted from this connection."""
        self.last_data_at = now = time.monotonic()
        self._silence.event_received(now)
        if not self.delivering:
            self.delivering = True
            self.first_data_at_ns = self.first_data_at_ns or time.time_ns()
            self._backoff.reset()
            _log.info("first data from %s", self._settings.url)

    def expedite(self) -> None:
        """From now on others do not come first, and the next attempt is made at once."""
        if self.spare:
            self.spare = False
            self._needed.set()

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.closed.done()

    def check(self, now: float) -> None:
        """Call about once a second."""
        self._gate.report(now)
        if self.paused and now - self._paused_at > PAUSE_LIMIT_S:
            self.close(f"reading has paused for {PAUSE_LIMIT_S:g} s")
        if self._connection is None or self.paused:
            return
        self._connection.check(now)
        if self._request is not None:
            return
        silent_s = self._silence.overdue_s(now)
        if silent_s is not None and now >= self._suspect_at:
            spare = not self._silence.is_urgent(now)
            self._want(HandoverRequest(HandoverCause.SILENCE, f"nothing came for {silent_s:.1f} s", spare))
        elif now >= self._rotate_at:
            self._want(HandoverRequest(HandoverCause.AGE, f"it is {self._rotation_age_s:.0f} s old"))

    def renew(self, reason: str) -> None:
        """The exchange is about to end this connection: take a new one at once."""
        if self._change is None:
            self._want(HandoverRequest(HandoverCause.SHUTDOWN, reason, spare=False))

    def _want(self, wish: HandoverRequest) -> None:
        self._request = wish
        self._stirred.set()

    def pause(self) -> None:
        if not self.paused:
            self.paused = True
            self._paused_at = time.monotonic()
            self._resumed.clear()
            self._silence.stop()
            if self._change is not None:
                self._change.give_up()
            for connection in self._connections():
                connection.pause()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self._silence.begin(time.monotonic())
            self._stirred.set()
            self._resumed.set()
            for connection in self._connections():
                connection.resume()

    def pause_reads_for(self, lull_s: float) -> None:
        """Read nothing for so long; less if reading resumes meanwhile."""
        if self.paused or self._lulled:
            return
        self._lulled = True
        for connection in self._connections():
            connection.pause()
        asyncio.get_running_loop().call_later(lull_s, self._end_read_pause)

    def _end_read_pause(self) -> None:
        self._lulled = False
        if not self.paused:
            for connection in self._connections():
                connection.resume()

    def close(self, reason: str) -> None:
        for connection in self._connections():
            connection.close(reason)

    def _connections(self) -> list[FeedConnection]:
        second = self._change.new if self._change else None
        return [each for each in (self._connection, second) if each is not None]
