"""Keeps one stream linked to a publisher: chooses it, sends batches, accepts acknowledgements, and changes to
another publisher.

Everything unacknowledged stays in the window, so a link that ends in whatever way costs a resend and no loss.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Protocol

from actors.stream.assignment_source import AssignmentSource
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

# The most that one message of the link holds; one batch may exceed it.
MAX_SENT_RECORDS = 512
MAX_SENT_BYTES = 256 * 1024
REFILL_BYTES = 512 * 1024
HANDOVER_S = 1.0
CHECK_EVERY_S = 0.25
# A publisher whose NATS connection is down for this long is left for another one, since only its own path may
# be broken. If the next one has no connection either, NATS itself is down, and each further change waits
# twice as long.
NATS_WAIT_S, MAX_NATS_WAIT_S = 0.5, 30.0
# How long to wait before the next try, when no publisher can be reached.
RETRY_S = (0.05, 0.25)


class LinkKeeperListener(Protocol):
    """What a link keeper reports. Called in its event loop, and may call it back."""

    def records_left(self) -> None:
        """Records have left the window, so that it may have room again."""

    def record_refused(self, record: RecordBatch, reason: str) -> None:
        """NATS can never store this event, which is alone in its batch."""

    def predecessor_known(self, stored: StoredPosition) -> None:
        """The last stored event is of an earlier incarnation, or NATS knows of none. Once a session."""

    def journal_lost(self, loss: JournalLoss) -> None:
        """Damage to the journal has taken events that are not stored."""


class LinkKeeper:
    """Keeps the stream of `window` and `journal` linked, as incarnation `epoch`. Use from one event loop."""

    def __init__(
        self,
        settings: StreamSettings,
        host: Host,
        window: SendWindow,
        journal: Journal | None,
        epoch: int,
        listener: LinkKeeperListener,
    ) -> None:
        # From the socket's read to the acknowledgement, and to the write to NATS.
        self.latency = RollingHistogram(window_s=10.0)
        self.relay_latency = RollingHistogram(window_s=10.0)
        self.failovers = 0
        self.fenced_by: int | None = None
        self.unwritten = False
        self._spec = settings.spec
        self._host = host
        self._assignments = AssignmentSource(host, settings.spec.key)
        self._window = window
        self._journal = journal
        self._epoch = epoch
        self._listener = listener
        self._journal_losses = JournalLossTracker()
        self._failover = Failover(settings.spec.key)
        self._link: LinkClient | None = None
        self._limits: link_codec.Resume | None = None
        self._tip = ""
        self._handing_over = False
        self._refill_handle: asyncio.Handle | None = None
        self._empty = asyncio.Event()
        self._nats_wait_s = NATS_WAIT_S

    @property
    def histograms(self) -> Mapping[Metric, RollingHistogram]:
        """The exported histograms, by metric."""
        return {Metric.STREAM_LATENCY: self.latency, Metric.STREAM_RELAY_LATENCY: self.relay_latency}

    @property
    def publisher(self) -> str | None:
        return self._link.publisher if self._link else None

    @property
    def linked(self) -> bool:
        return self._link is not None and self._link.session is not None

    @property
    def assignment(self) -> Assignment | None:
        return self._assignments.current

    def assign(self, assignment: Assignment) -> None:
        is_newest = self._assignments.assign(assignment)
        if is_newest and self._link is not None and self._should_hand_over(self._link, time.monotonic()):
            self._hand_over(self._link)

    async def run(self) -> None:
        """Until cancelled; raises FencedError once a later incarnation may store."""
        while True:
            await self._assignments.load_if_unknown()
            endpoint = self._failover.choose(self.assignment, time.monotonic())
            if endpoint is None:
                await self._assignments.wait_for_change(RETRY_S)
                continue
            try:
                self._link = await open_link(endpoint, self._host.node, self, self._host.secret)
            except LinkError as error:
                _log.info("%s", error)
                self._failover.failed(endpoint.publisher, time.monotonic())
                await self._assignments.wait_for_change(RETRY_S)
                continue
            await self._monitor(self._link)

    async def _monitor(self, link: LinkClient) -> None:
        """Check one link until it is closed."""
        nats_seen_at = time.monotonic()
        while not link.closed.done():
            await asyncio.wait({link.closed}, timeout=CHECK_EVERY_S)
            now = time.monotonic()
            if link.connected:
                nats_seen_at = now
                self._nats_wait_s = NATS_WAIT_S
            self._check_link(link, now, nats_seen_at)
        self._link_ended(link)

    def _check_link(self, link: LinkClient, now: float, nats_seen_at: float) -> None:
        if link.closed.done():
            return
        others = self.assignment is not None and len(self.assignment.endpoints) > 1
        if link.silent(now):
            link.close("the publisher is silent")
        elif others and now - nats_seen_at > self._nats_wait_s:
            self._nats_wait_s = min(MAX_NATS_WAIT_S, 2 * self._nats_wait_s)
            link.close("the publisher has no NATS connection")
        elif self._should_hand_over(link, now):
            self._hand_over(link)

    def _should_hand_over(self, link: LinkClient, now: float) -> bool:
        wanted = self._failover.choose(self.assignment, now)
        return wanted is not None and wanted.publisher != link.publisher

    def _hand_over(self, link: LinkClient) -> None:
        """Send nothing more and leave once all in flight is acknowledged, or when that takes too long."""
        if not self._handing_over:
            self._handing_over = True
            asyncio.get_running_loop().call_later(HANDOVER_S, link.close, "handover took too long")
        self._leave_if_acknowledged()

    def _leave_if_acknowledged(self) -> None:
        if self._handing_over and self._link is not None and not self._window.in_flight_records:
            self._link.bye()

    def _link_ended(self, link: LinkClient) -> None:
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
            self._listener.predecessor_known(stored)
        self._limits = message
        self._failover.worked(link.publisher)
        self._journal_losses.stored(stored)
        self._report_journal_losses()
        self._after_change()

    def acknowledged(self, message: link_codec.Ack) -> None:
        same_clock = self._link is not None and self._link.same_node
        # Another node's clock may differ, so there the message counts as sent when it arrives.
        sent_ns = message.sent_ns if same_clock else time.time_ns()
        for offset, waited_us, answered_us in message.marks:
            acknowledged_ns = sent_ns - 1000 * waited_us
            published_ns = acknowledged_ns - 1000 * answered_us
            for recv_ns, count in self._window.acknowledge(offset):
                self.latency.add_many(acknowledged_ns - recv_ns, count)
                self.relay_latency.add_many(published_ns - recv_ns, count)
        self._after_change()

    def refused(self, message: link_codec.Refused) -> None:
        record = self._window.refuse(message.offset)
        if record is not None and record.kind in EVENT_KINDS:
            self._listener.record_refused(record, message.reason)
        self._after_change()

    def fenced(self, epoch: int) -> None:
        self.fenced_by = epoch
        if self._link is not None:
            self._link.close(f"fenced by epoch {epoch}")

    def writable(self) -> None:
        self.pump()

    def _after_change(self) -> None:
        if self._journal is not None:
            self._journal.acknowledge(self._window.settled_offset())
        self._remember_tip()
        self._leave_if_acknowledged()
        self.pump()
        if self._window.empty:
            self._empty.set()
        self._listener.records_left()

    def _remember_tip(self) -> None:
        """With nothing in flight the last acknowledged event is the last one stored: the next publisher need
        not ask NATS."""
        self._tip = ""
        if self._handing_over and not self._window.in_flight_records:
            last = self._window.last_acknowledged
            if last is not None and last.epoch == self._epoch:
                self._tip = message_ids(self._spec.key.encode(), last, 0, 1)[0].decode()

    def send_at_once(self, batch: BufferedBatch) -> bool:
        """Send a new batch, for which the window has room, if nothing waits before it; False if it has to."""
        link, limits = self._link, self._limits
        if link is None or limits is None or not link.ready or self._handing_over:
            return False
        if not self._window.admit_in_flight(batch, limits.max_messages, limits.max_bytes):
            return False
        link.send(0, batch.encoded)
        return True

    def pump(self) -> None:
        """Send what is queued, as far as the publisher's credit allows."""
        link, limits, window = self._link, self._limits, self._window
        if window.wants_refill():
            has_read = self._refill()
            if has_read and window.holds_nothing and self._refill_handle is None:
                # All of it was stored already, so no acknowledgement will come to ask for more.
                self._refill_handle = asyncio.get_running_loop().call_soon(self._refill_again)
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
        self._refill_handle = None
        self._after_change()

    def _refill(self) -> bool:
        """Whether the journal had anything."""
        assert self._journal is not None
        encoded = self._journal.read_after(self._window.newest_in_memory, REFILL_BYTES)
        self._journal_losses.follow(encoded, damaged=self._journal.take_damage_flag())
        if encoded:
            self._window.refill(encoded)
            self._report_journal_losses()
        elif not self.unwritten:
            for loss in self._journal_losses.end():
                self._listener.journal_lost(loss)
            missing = self._window.refill_ended()
            if missing:
                _log.error("the journal lost %d events to damage; they are counted as dropped", missing)
        return bool(encoded)

    def _report_journal_losses(self) -> None:
        """Only once the stored position is known: NATS may have stored an event whose record is damaged."""
        if self.linked:
            for loss in self._journal_losses.found():
                self._listener.journal_lost(loss)

    async def emptied(self) -> None:
        """Wait until nothing is queued, in flight or spilled."""
        self._empty.clear()
        if not self._window.empty:
            await self._empty.wait()

    def close(self) -> None:
        if self._refill_handle is not None:
            self._refill_handle.cancel()
        if self._link is not None:
            if self._window.in_flight_records:
                self._link.close("draining ended")
            else:
                self._link.bye()
