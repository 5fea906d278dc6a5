"""Keeps one stream's WebSocket connected: its turn to connect, back-off, successors and probes.

Before a connection is closed that is about to end, a successor is opened beside it; beside a silent
connection a probe is opened.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from actors.stream.connect_gate import ConnectGate
from actors.stream.handover import HandoverRequest, HandoverRun
from relay.adapters.waiting import wait_until_set
from relay.adapters.websocket import FeedConnection, Sink, open_feed
from relay.config import StreamSettings
from relay.errors import FeedError, HandshakeRefusedError
from relay.feed.address_fallback import AddressFallback
from relay.feed.handover import HandoverCause, HandoverOutcome, rotation_age_s
from relay.feed.overlap import Overlap, event_key
from relay.feed.silence import SilenceDetector
from relay.feed.timing import DEFAULT_TIMING, FeedTiming
from relay.primitives.backoff import Backoff

_log = logging.getLogger(__name__)

BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 30.0
# A successor by age that could not be opened, or brought nothing, is tried again after this time.
ROTATE_AGAIN_S = 60.0


class FeedKeeper:
    """`on_payloads` gets every read. `on_disconnected` is called at every change of connection across which
    events may be missing.

    Binance accepts a subscription to an unknown stream and sends nothing, so only data shows that a
    connection works: `delivering` turns true, and the back-off is reset, when the owner calls `delivered`.
    A `low_priority` keeper leaves the connect budget to others. `subscribed_at_ns` and `first_data_at_ns` are
    Unix times, 0 before there was a connection or an event.
    """

    def __init__(
        self,
        settings: StreamSettings,
        gate: ConnectGate,
        on_payloads: Sink,
        on_disconnected: Callable[[], None],
        timing: FeedTiming = DEFAULT_TIMING,
    ) -> None:
        self.delivering = False
        self.paused = False
        self.low_priority = False
        self.reconnects = self.rotations = self.silences = self.unaligned = 0
        self.last_error = ""
        self.last_data_at: float | None = None
        self.subscribed_at_ns = self.first_data_at_ns = 0
        self._settings = settings
        self._gate = gate
        self._timing = timing
        self._read_pause_runs = False
        self._on_payloads = on_payloads
        self._on_disconnected = on_disconnected
        self._backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S, random.Random())
        self._second_backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S, random.Random())
        self._silence = SilenceDetector(settings.spec.silence_limit_s, timing.subscribed_s)
        self._event_key = event_key(settings.spec)
        self._rotation_age_s = rotation_age_s(settings.spec.key, settings.rotate_after_s)
        self._last_address = AddressFallback()
        self._connection: FeedConnection | None = None
        self._handover: HandoverRun | None = None
        self._request: HandoverRequest | None = None
        self._changed = asyncio.Event()
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
        await wait_until_set(self._needed, seconds)

    async def _one_connection(self) -> float:
        """From opening a connection to the end of its last successor. Returns the seconds to wait then."""
        try:
            self._use(await self._open(self._on_payloads, low_priority=self.low_priority))
            error = await self._attend()
        except FeedError as raised:
            error = raised
        self.last_error = str(error)
        self._silence.stop()
        if self.delivering:
            self.delivering = False
            self._on_disconnected()
        self._connection = None
        request, self._request = self._request, None
        at_once = request is not None and request.cause is HandoverCause.SHUTDOWN
        wait_s = 0.0 if at_once else max(self._backoff.next_s(), error.retry_after_s or 0.0)
        _log.warning("feed ended: %s; next attempt in %.2f s", error, wait_s)
        return wait_s

    async def _open(self, sink: Sink, *, low_priority: bool) -> FeedConnection:
        permit = await self._gate.admit(low_priority=low_priority)
        try:
            connection = await self._reach(sink)
        except FeedError as error:
            await self._gate.record_outcome(permit, error)
            raise
        connection.closed.add_done_callback(lambda _: self._changed.set())
        try:
            await self._gate.record_outcome(permit, None)
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

    def _use(self, connection: FeedConnection) -> None:
        now = time.monotonic()
        self._connection = connection
        self._rotate_at = now + self._rotation_age_s
        self._silence.begin(now)
        self.subscribed_at_ns = self.subscribed_at_ns or time.time_ns()

    async def _attend(self) -> FeedError:
        """Carries out requests for handovers until a connection ends without a successor; returns why."""
        while True:
            assert self._connection is not None
            if self._connection.closed.done():
                return self._connection.closed.result()
            if self._request is not None and not self.paused:
                await self._carry_out(self._request, self._connection)
            else:
                self._changed.clear()
                await self._changed.wait()

    async def _carry_out(self, request: HandoverRequest, old: FeedConnection) -> None:
        overlap = Overlap(self._event_key, unique=bool(self._settings.spec.id_key))
        limit_s = self._silence.limit_s()
        handover = HandoverRun(request, old, overlap, limit_s, self._on_payloads, self._timing)
        self._handover = handover
        _log.info("opening a second connection: %s", request.reason)
        try:
            outcome = await handover.run(lambda sink: self._open(sink, low_priority=request.low_priority))
        except asyncio.CancelledError:
            handover.stay()
            raise
        except FeedError as error:
            handover.stay()
            await self._retry_later(request, old, error)
        else:
            self._request = self._handover = None
            self._conclude(handover, outcome)
        finally:
            self._handover = None

    def _conclude(self, handover: HandoverRun, outcome: HandoverOutcome) -> None:
        assert handover.new is not None
        self._second_backoff.reset()
        if outcome is HandoverOutcome.KEEP or outcome is HandoverOutcome.QUIET:
            handover.stay()
            self._rotate_at = max(self._rotate_at, time.monotonic() + ROTATE_AGAIN_S)
            if outcome is HandoverOutcome.QUIET:
                self._silence.confirm_quiet(time.monotonic())
            _log.info("closed the second connection again (%s): %s", handover.request.reason, outcome.value)
            return
        self._use(handover.new)
        if outcome is not HandoverOutcome.JOIN:
            self._events_may_be_missing(handover, handover.request.reason)
        handover.switch(outcome, lambda: self._events_may_be_missing(handover, "the overlap broke off"))
        if outcome is HandoverOutcome.JOIN:
            self.rotations += 1
            _log.info(
                "replaced the connection (%s): %d events came on both and were taken once, in %.2f s;"
                " 0 lost, 0 repeated", handover.request.reason, handover.overlap.removed, handover.took_s,
            )  # fmt: skip

    def _events_may_be_missing(self, handover: HandoverRun, reason: str) -> None:
        """Count and announce it; the ids of later events show which are missing, where the stream has ids."""
        if handover.request.cause is HandoverCause.SILENCE:
            self.silences += 1
        elif not handover.overlap.unique:
            self.unaligned += 1
        self.last_error = f"the connection was replaced without an overlap: {reason}"
        _log.warning("%s; it took %.2f s, and events may be missing", self.last_error, handover.took_s)
        self._on_disconnected()

    async def _retry_later(self, request: HandoverRequest, old: FeedConnection, error: FeedError) -> None:
        """The second connection could not be opened: continue with the old one for now."""
        self.last_error = f"{request.reason}, and no second connection: {error}"
        _log.warning("%s", self.last_error)
        wait_s = max(self._second_backoff.next_s(), error.retry_after_s or 0.0)
        if request.cause is HandoverCause.SHUTDOWN:
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
        """Be `low_priority` no longer, and make the next attempt now."""
        if self.low_priority:
            self.low_priority = False
            self._needed.set()

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.closed.done()

    def check(self, now: float) -> None:
        """Call about once a second with monotonic `now`."""
        self._gate.report(now)
        max_pause_s = self._timing.max_pause_s
        if self.paused and now - self._paused_at > max_pause_s:
            self.close(f"reading has paused for {max_pause_s:g} s")
        if self._connection is None or self.paused:
            return
        self._connection.check(now)
        if self._request is not None:
            return
        silent_s = self._silence.overdue_s(now)
        if silent_s is not None and now >= self._suspect_at:
            low_priority = not self._silence.is_urgent(now)
            self._ask_for(
                HandoverRequest(HandoverCause.SILENCE, f"nothing came for {silent_s:.1f} s", low_priority)
            )
        elif now >= self._rotate_at:
            self._ask_for(HandoverRequest(HandoverCause.AGE, f"it is {self._rotation_age_s:.0f} s old"))

    def renew(self, reason: str) -> None:
        """The exchange is about to end this connection: open its successor now."""
        if self._handover is None:
            self._ask_for(HandoverRequest(HandoverCause.SHUTDOWN, reason, low_priority=False))

    def _ask_for(self, request: HandoverRequest) -> None:
        self._request = request
        self._changed.set()

    def pause(self) -> None:
        if not self.paused:
            self.paused = True
            self._paused_at = time.monotonic()
            self._resumed.clear()
            self._silence.stop()
            if self._handover is not None:
                self._handover.give_up()
            for connection in self._connections():
                connection.pause()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            self._silence.begin(time.monotonic())
            self._changed.set()
            self._resumed.set()
            for connection in self._connections():
                connection.resume()

    def pause_reads_for(self, seconds: float) -> None:
        """Read nothing for so long; less if `resume` is called before."""
        if self.paused or self._read_pause_runs:
            return
        self._read_pause_runs = True
        for connection in self._connections():
            connection.pause()
        asyncio.get_running_loop().call_later(seconds, self._end_read_pause)

    def _end_read_pause(self) -> None:
        self._read_pause_runs = False
        if not self.paused:
            for connection in self._connections():
                connection.resume()

    def close(self, reason: str) -> None:
        for connection in self._connections():
            connection.close(reason)

    def _connections(self) -> list[FeedConnection]:
        second = self._handover.new if self._handover else None
        return [each for each in (self._connection, second) if each is not None]
