"""The relay of one stream: one exchange connection, one journal, one window, one link to a publisher.

Events are written to the journal in the callback that read them, and sent in the same callback, so that an
event of a calm stream costs one wake-up here. Reading never waits for publishing, unless the window's policy
is `block` or the journal is full. A kill costs what the kernel has not handed to the process yet; the next
incarnation continues from the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time

from actors.stream.backfiller import Backfiller
from actors.stream.journal_writer import JournalWriter
from actors.stream.link_keeper import LinkKeeper
from actors.stream.node_files import epoch_directory, journal_directory
from actors.stream.start import Start
from actors.stream.stats import StatsCollector, status_line
from relay.binance.event_time import event_time_ns
from relay.config import StreamSettings
from relay.delivery.window import SendWindow
from relay.errors import FencedError
from relay.feed.read_coalescing import read_pause_s
from relay.intake.intake import Intake, IntakeResult
from relay.journal.damage import JournalLoss
from relay.journal.journal import Journal
from relay.journal.open_gaps_file import OpenGapsFile
from relay.model.assignment import Assignment
from relay.model.choices import Overflow
from relay.model.position import StoredPosition
from relay.model.record_batch import NO_EVENT_ID, RecordBatch
from relay.model.stats import StreamState, StreamStats
from relay.observability.metric_recording import StreamMetrics
from relay.ports import Host
from relay.primitives.clock_step import ClockStepDetector

_log = logging.getLogger(__name__)

TICK_S = 1.0
LOG_EVERY_TICKS = 10


class StreamRelay:
    """Everything of one stream, on one event loop; `start` says where it begins."""

    def __init__(self, settings: StreamSettings, host: Host, start: Start) -> None:
        self.settings = settings
        self.epoch = start.epoch
        self._host = host
        self._start = start
        self._journal = self._open_journal()
        self._writer = self._journal_writer()
        self.window = SendWindow(
            max_messages=settings.queue.max_messages,
            max_bytes=settings.queue.max_bytes,
            overflow=settings.overflow,
        )
        self.intake = self._new_intake()
        self.feed = start.feed_for(self)
        self.backfiller = self._new_backfiller()
        self.links = self._new_links()
        self._stats = StatsCollector(
            settings,
            host,
            epoch=self.epoch,
            window=self.window,
            intake=self.intake,
            feed=self.feed,
            links=self.links,
            journal=self._writer,
        )
        self._clock = ClockStepDetector()
        self._draining = False
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics = StreamMetrics(host.metrics, settings.spec.key)
        self._logged_state = StreamState.CONNECTING

    def _open_journal(self) -> Journal | None:
        settings = self.settings
        if not settings.journal:
            return None
        directory = journal_directory(settings)
        return Journal(directory, epoch=self.epoch, max_bytes=settings.journal_max_bytes)

    def _journal_writer(self) -> JournalWriter | None:
        if self._journal is None:
            return None
        return JournalWriter(self._journal, self.settings.spec.key, self._on_journal_stalled)

    def _new_backfiller(self) -> Backfiller:
        settings = self.settings
        open_gaps = OpenGapsFile(journal_directory(settings), self.epoch) if settings.journal else None
        return Backfiller(
            settings,
            self.intake,
            self._deliver,
            open_gaps,
            directory=self._host.socket_directory,
            has_no_room=self._has_no_room,
        )

    def _new_links(self) -> LinkKeeper:
        return LinkKeeper(self.settings, self._host, self.window, self._journal, self.epoch, self)

    def _new_intake(self) -> Intake:
        settings = self.settings
        if self._journal is None:
            return Intake(
                settings.spec,
                self.window,
                epoch=self.epoch,
                heals=settings.heal,
                subject=settings.subject,
            )
        recovery = self._journal.recovery
        self.window.recover(recovery.events, recovery.acknowledged_offset, recovery.last_offset)
        self._start.journal_recovered(recovery.last_event)
        for damage in recovery.damages:
            _log.error("journal damage: %s", damage)
        if recovery.events:
            _log.info("resumed with %d events from the journal", recovery.events)
        last = recovery.last_numbered_event
        return Intake(
            settings.spec,
            self.window,
            epoch=self.epoch,
            last_offset=recovery.last_offset,
            last_event_id=last.event_ids[0] if last else NO_EVENT_ID,
            last_event_ns=event_time_ns(last.payloads[0], last.recv_ns) if last else 0,
            heals=settings.heal,
            subject=settings.subject,
        )

    async def run(self) -> None:
        """Until `drain`. An error raised here ends the process, and Ray starts the next incarnation."""
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks = [
                    group.create_task(self._start.run(self)),
                    group.create_task(self._keep_linked()),
                    group.create_task(self.backfiller.run()),
                    group.create_task(self._tick()),
                ]
        finally:
            self.feed.close("stopping")
            self.links.close()
            # The transports' last callbacks are due in the next turn of the loop.
            await asyncio.sleep(0)

    async def _keep_linked(self) -> None:
        """The epoch that fenced this incarnation may come from a clock that is ahead: without a reservation
        the next incarnation would choose a lower one and be fenced as well."""
        try:
            await self.links.run()
        except FencedError as fenced:
            Journal.reserve_epochs_through(epoch_directory(self.settings, self._host), fenced.epoch)
            raise

    def accept(self, payloads: list[bytes], recv_ns: int) -> None:
        # Not by `recv_ns`: at a handover of two connections, what was read some time ago comes now.
        set_back_ns = self._clock.set_back_ns(time.time_ns(), time.monotonic_ns())
        if set_back_ns:
            self.intake.clock_set_back(set_back_ns)
        batch = self.intake.accept_fast(payloads, recv_ns)
        if batch is None:
            self._accept_slow(payloads, recv_ns)
            return
        if not self.links.send_at_once(batch):
            self.window.offer(batch)
            self.links.pump()
        writer = self._writer
        if writer is not None:
            writer.write(batch.encoded, batch.last_offset)
        self.feed.delivered()
        if pause_s := read_pause_s(len(payloads), *self.window.unanswered(recv_ns)):
            self.feed.pause_reads_for(pause_s)
        # With any other policy the window takes further reads, however full it is.
        if self.window.overflow is Overflow.BLOCK or (writer is not None and writer.is_short_of_room):
            self._reconsider_reading()

    def _accept_slow(self, payloads: list[bytes], recv_ns: int) -> None:
        result = self.intake.accept(payloads, recv_ns)
        self._deliver(result)
        if result.accepted or result.held:
            self.feed.delivered()
        if result.gap is not None:
            self.backfiller.gap_found(result)
        self._reconsider_reading()
        if result.shutdown:
            self.feed.renew("the exchange announced its shutdown")

    def _deliver(self, result: IntakeResult) -> None:
        """Send before writing, where that is possible: the publisher works while this process writes, and its
        acknowledgements are read only after that. What the window has spilled is sent from the journal, so
        it has to be there first."""
        if self.window.has_spilled:
            self._store(result)
            self.links.pump()
        else:
            self.links.pump()
            self._store(result)

    def _store(self, result: IntakeResult) -> None:
        if self._writer is not None and result.journal:
            self._writer.write(result.journal, result.last_offset)

    def _on_journal_stalled(self, stalled: bool) -> None:
        self.links.unwritten = stalled
        if stalled:
            self._reconsider_reading()
        else:
            self.links.pump()

    def _reconsider_reading(self) -> None:
        if self._draining or self._journal_blocks or self.window.blocked:
            self.feed.pause()
        elif self.feed.paused:
            self.feed.resume()

    def _has_no_room(self) -> bool:
        """Backfilled events would wait, or displace others; they need not come now."""
        return self.feed.paused or (self.window.full and self.window.overflow is not Overflow.SPILL)

    def records_left(self) -> None:
        self._reconsider_reading()

    def record_refused(self, record: RecordBatch, reason: str) -> None:
        _log.error("NATS can never take event %d: %s", record.seq, reason)
        self._store(self.intake.refused(record.payloads[0], record.recv_ns, reason))

    def predecessor_known(self, stored: StoredPosition) -> None:
        self._start.position_known(self, stored)

    def preceded_by(self, stored: StoredPosition) -> None:
        """This event of another incarnation is stored last; what is missing behind it is asked for."""
        result = self.intake.preceded_by(stored.event_id, stored.sent_ns)
        self._store(result)
        self.backfiller.gap_found(result)

    def journal_lost(self, loss: JournalLoss) -> None:
        result = self.intake.journal_lost(loss)
        self._store(result)
        self.backfiller.gap_found(result)

    @property
    def _journal_blocks(self) -> bool:
        writer = self._writer
        return writer is not None and (writer.has_unwritten or writer.is_short_of_room)

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            ticks += 1
            self.feed.check(time.monotonic())
            if self._writer is not None:
                self._writer.retry()
            self._reconsider_reading()
            self._stats.measure()
            stats = self.stats()
            self._log_change(stats)
            self._metrics.update(stats, self.links.histograms)
            self._host.set_title(f"ray::Stream {stats.stream} backlog={stats.backlog_count}")
            if ticks % LOG_EVERY_TICKS == 0:
                _log.info("%s", status_line(stats))

    def _log_change(self, stats: StreamStats) -> None:
        if stats.state is not self._logged_state:
            why = f" ({stats.problem})" if stats.problem else ""
            _log.info("%s, was %s%s: %s", stats.state, self._logged_state, why, status_line(stats))
            self._logged_state = stats.state

    def assign(self, assignment: Assignment) -> None:
        self.links.assign(assignment)

    async def drain(self, deadline_s: float) -> StreamStats:
        """Stop reading, then send what is held until the deadline; the rest stays in the journal."""
        self._draining = True
        if self._tasks:
            self._tasks[0].cancel()
        self.feed.close("draining")
        self.backfiller.stop()
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline_s):
                await self.links.emptied()
        except TimeoutError:
            _log.warning("%d events are left after %.0f s", self.stats().backlog_count, deadline_s)
        self.links.close()
        for task in self._tasks:
            task.cancel()
        self._stopped = True
        if self._writer is not None:
            self._writer.close()
        stats = self.stats()
        _log.info("drained: %s", status_line(stats))
        return stats

    def _state(self) -> StreamState:
        if self._stopped:
            return StreamState.STOPPED
        if self._draining:
            return StreamState.DRAINING
        if self.feed.paused:
            return StreamState.BLOCKED
        return StreamState.LIVE if self.feed.delivering else StreamState.CONNECTING

    def stats(self) -> StreamStats:
        return self._stats.collect(self._state())
