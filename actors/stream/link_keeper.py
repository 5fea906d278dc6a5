"""Keeps one stream linked to a publisher: chooses it, sends batches, takes acknowledgements, hands over.

Everything unacknowledged stays in the window, so a link that ends in whatever way costs a resend, not a loss.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping

from relay.adapters.link_client import LinkClient, open_link
from relay.config import StreamSettings
from relay.delivery import link_codec
from relay.delivery.buffered_batch import BufferedBatch
from relay.delivery.failover import Failover
from relay.delivery.window import SendWindow
from relay.errors import FencedError, LinkError
from relay.journal.damage import JournalLoss, JournalLossTracker
from relay.journal.journal import Journal
from relay.model.assignment import Assignment
from relay.model.position import StoredPosition
from relay.model.record_batch import EVENT_KINDS, RecordBatch
from relay.observability.metrics import Metric
from relay.ports import Host
from relay.primitives.histogram import RollingHistogram
from relay.publish.message_ids import message_ids

_log = logging.getLogger(__name__)

# What goes out in one message of the link.
MAX_SENT_RECORDS = 512
MAX_SENT_BYTES = 256 * 1024
REFILL_BYTES = 512 * 1024
HANDOVER_S = 1.0
CHECK_EVERY_S = 0.25
# A publisher without NATS for this long is left for another one: only its own path may be broken. If the next
# has none either, NATS itself is away, and each further change waits twice as long.
NATS_PATIENCE_S, NATS_PATIENCE_MAX_S = 0.5, 30.0
# With the controller and every publisher gone there is nothing to do but look again.
RETRY_S = (0.05, 0.25)


class LinkKeeper:
    """`on_room` is called when records left the window, `on_refused` when NATS can never take one, and
    `on_predecessor` with a message that names the last stored event of an earlier incarnation, or none if
    NATS knows of none. `on_torn` is called for each hole that damage made in the
    journal."""

    def __init__(
        self,
        settings: StreamSettings,
        host: Host,
        window: SendWindow,
        journal: Journal | None,
        epoch: int,
        *,
        on_room: Callable[[], None],
        on_refused: Callable[[RecordBatch, str], None],
        on_predecessor: Callable[[StoredPosition], None],
        on_torn: Callable[[JournalLoss], None],
    ) -> None:
        # From the socket's read to the acknowledgement, and to the write to NATS.
        self.latency = RollingHistogram(window_s=10.0)
        self.relay_latency = RollingHistogram(window_s=10.0)
        self.assignment: Assignment | None = None
        self.failovers = 0
        self.fenced_by: int | None = None
        self.unwritten = False
        self._spec = settings.spec
        self._host = host
        self._window = window
        self._journal = journal
        self._epoch = epoch
        self._on_room = on_room
        self._on_refused = on_refused
        self._on_predecessor = on_predecessor
        self._on_torn = on_torn
        self._journal_losses = JournalLossTracker()
        self._failover = Failover(settings.spec.key)
        self._link: LinkClient | None = None
        self._limits: link_codec.Resume | None = None
        self._tip = ""
        self._handing_over = False
        self._wake = asyncio.Event()
        self._again: asyncio.Handle | None = None
        self._empty = asyncio.Event()
        self._nats_patience_s = NATS_PATIENCE_S

    @property
    def histograms(self) -> Mapping[Metric, RollingHistogram]:
        """Those that are exported, each as the metric that it is."""
        return {Metric.STREAM_LATENCY: self.latency, Metric.STREAM_RELAY_LATENCY: self.relay_latency}

    @property
    def publisher(self) -> str | None:
        return self._link.publisher if self._link else None

    @property
    def linked(self) -> bool:
        return self._link is not None and self._link.session is not None

    def assign(self, assignment: Assignment) -> None:
        if self.assignment is None or assignment.version >= self.assignment.version:
            self.assignment = assignment
            self._wake.set()
            if self._link is not None and self._should_hand_over(self._link, time.monotonic()):
                self._hand_over(self._link)

    async def run(self) -> None:
        while True:
            if self.assignment is None:
                await self._look_up_assignment()
            endpoint = self._failover.choose(self.assignment, time.monotonic())
            if endpoint is None:
                await self._pause()
                continue
            try:
                self._link = await open_link(endpoint, self._host.node, self, self._host.secret)
            except LinkError as error:
                _log.info("%s", error)
                self._failover.failed(endpoint.publisher, time.monotonic())
                await self._pause()
                continue
            await self._attend(self._link)

    async def _look_up_assignment(self) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, self._host.assignment, self._spec.key)
        if found is not None:
            self.assign(found)

    async def _pause(self) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(random.uniform(*RETRY_S)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _attend(self, link: LinkClient) -> None:
        """Watch one link until it is over."""
        nats_seen_at = time.monotonic()
        while not link.closed.done():
            await asyncio.wait({link.closed}, timeout=CHECK_EVERY_S)
            now = time.monotonic()
            if link.connected:
                nats_seen_at = now
                self._nats_patience_s = NATS_PATIENCE_S
            self._check_link(link, now, nats_seen_at)
        self._left(link)

    def _check_link(self, link: LinkClient, now: float, nats_seen_at: float) -> None:
        if link.closed.done():
            return
        others = self.assignment is not None and len(self.assignment.endpoints) > 1
        if link.silent(now):
            link.close("the publisher is silent")
        elif others and now - nats_seen_at > self._nats_patience_s:
            self._nats_patience_s = min(NATS_PATIENCE_MAX_S, 2 * self._nats_patience_s)
            link.close("the publisher has no NATS connection")
        elif self._should_hand_over(link, now):
            self._hand_over(link)

    def _should_hand_over(self, link: LinkClient, now: float) -> bool:
        wanted = self._failover.choose(self.assignment, now)
        return wanted is not None and wanted.publisher != link.publisher

    def _hand_over(self, link: LinkClient) -> None:
        """Send nothing more, wait for what is in flight, leave; cut it off if that takes too long."""
        if not self._handing_over:
            self._handing_over = True
            asyncio.get_running_loop().call_later(HANDOVER_S, link.close, "handover took too long")
        self._leave_if_settled()

    def _leave_if_settled(self) -> None:
        if self._handing_over and self._link is not None and not self._window.in_flight_records:
            self._link.bye()

    def _left(self, link: LinkClient) -> None:
        reason = link.closed.result()
        clean = self._handing_over and not self._window.in_flight_records
        if not clean:
            self._tip = ""
            self.failovers += 1
            silent = link.silent(time.monotonic())
            self._failover.failed(link.publisher, time.monotonic(), silent=silent)
            _log.warning("link to publisher %s ended: %s", link.publisher, reason)
        self._window.rewind()
        self._link = None
        self._limits = None
        self._handing_over = False
        if self.fenced_by is not None:
            raise FencedError(self._spec.key, self.fenced_by)

    def hello(self) -> link_codec.Hello:
        return link_codec.Hello(stream=self._spec.key, epoch=self._epoch, tip=self._tip)

    def resumed(self, link: LinkClient, message: link_codec.Resume) -> None:
        self._window.rewind()
        stored = message.stored
        if stored.epoch:
            self._window.resume(stored)
        if stored.epoch < self._epoch:
            self._on_predecessor(stored)
        self._limits = message
        self._failover.worked(link.publisher)
        self._journal_losses.stored(stored)
        self._report_journal_losses()
        self._settle()

    def acknowledged(self, message: link_codec.Ack) -> None:
        same_clock = self._link is not None and self._link.same_node
        told_ns = message.sent_ns if same_clock else time.time_ns()
        for offset, waited_us, answered_us in message.marks:
            acknowledged_ns = told_ns - 1000 * waited_us
            published_ns = acknowledged_ns - 1000 * answered_us
            for recv_ns, count in self._window.acknowledge(offset):
                self.latency.add_many(acknowledged_ns - recv_ns, count)
                self.relay_latency.add_many(published_ns - recv_ns, count)
        self._settle()

    def refused(self, message: link_codec.Refused) -> None:
        record = self._window.refuse(message.offset)
        if record is not None and record.kind in EVENT_KINDS:
            self._on_refused(record, message.reason)
        self._settle()

    def fenced(self, epoch: int) -> None:
        self.fenced_by = epoch
        if self._link is not None:
            self._link.close(f"fenced by epoch {epoch}")

    def writable(self) -> None:
        self.pump()

    def _settle(self) -> None:
        if self._journal is not None:
            self._journal.acknowledge(self._window.settled_offset())
        self._remember_tip()
        self._leave_if_settled()
        self.pump()
        if self._window.empty:
            self._empty.set()
        self._on_room()

    def _remember_tip(self) -> None:
        """With nothing in flight the last acknowledged event is the last one stored."""
        self._tip = ""
        if self._handing_over and not self._window.in_flight_records:
            last = self._window.last_acknowledged
            if last is not None and last.epoch == self._epoch:
                self._tip = message_ids(self._spec.key.encode(), last, 0, 1)[0].decode()

    def send_at_once(self, batch: BufferedBatch) -> bool:
        """A new batch, for which the window has room, if nothing waits before it. False if it has to wait."""
        link, limits = self._link, self._limits
        if link is None or limits is None or not link.ready or self._handing_over:
            return False
        if not self._window.admit_in_flight(batch, limits.max_messages, limits.max_bytes):
            return False
        link.send(0, batch.encoded)
        return True

    def pump(self) -> None:
        """Send what is waiting, as far as the publisher's credit goes."""
        link, limits, window = self._link, self._limits, self._window
        if window.wants_refill():
            came = self._refill()
            if came and window.holds_nothing and self._again is None:
                # All of it was stored before, so no acknowledgement will ask for more.
                self._again = asyncio.get_running_loop().call_soon(self._refill_again)
        if link is None or limits is None or self._handing_over:
            return
        while window.has_queued and link.ready:
            room_records = limits.max_messages - window.in_flight_records
            room_bytes = limits.max_bytes - window.in_flight_bytes
            if room_records <= 0 or room_bytes <= 0:
                break
            batches = window.start_sending(
                min(room_records, MAX_SENT_RECORDS), min(room_bytes, MAX_SENT_BYTES)
            )
            encoded = [batch.encoded for batch in batches]
            link.send(batches[0].done, encoded[0] if len(encoded) == 1 else b"".join(encoded))

    def _refill_again(self) -> None:
        self._again = None
        self._settle()

    def _refill(self) -> bool:
        """Whether the journal had anything."""
        assert self._journal is not None
        encoded = self._journal.read_after(self._window.newest_in_memory, REFILL_BYTES)
        self._journal_losses.follow(encoded, torn=self._journal.take_damage_flag())
        if encoded:
            self._window.refill(encoded)
            self._report_journal_losses()
        elif not self.unwritten:
            for tear in self._journal_losses.end():
                self._on_torn(tear)
            missing = self._window.refill_ended()
            if missing:
                _log.error("the journal lost %d events to damage; they are counted as dropped", missing)
        return bool(encoded)

    def _report_journal_losses(self) -> None:
        """Not before it is known what is stored: an event may be, though its record is damaged."""
        if self.linked:
            for tear in self._journal_losses.found():
                self._on_torn(tear)

    async def settled(self) -> None:
        """Until nothing is queued, in flight or spilled."""
        self._empty.clear()
        if not self._window.empty:
            await self._empty.wait()

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._link is not None:
            if self._window.in_flight_records:
                self._link.close("draining ended")
            else:
                self._link.bye()
