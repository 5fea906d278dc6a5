"""The stream actor: one socket, one journal, one window, one link to a publisher.

Events are journalled in the callback that read them and sent in the same callback, so a calm stream adds one
wake-up here. Reading never waits for publishing until the window's policy is `block` or the journal is full.
A kill costs what the kernel had not handed over yet; the next incarnation resumes from the journal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

from actors.stream.backfiller import Backfiller
from actors.stream.facade import StreamActorFacade
from actors.stream.link_keeper import LinkKeeper
from actors.stream.node_files import epoch_directory, journal_directory
from actors.stream.start import FreshStart, Start
from relay.binance.event_time import event_time_ns
from relay.config import StreamSettings
from relay.delivery.window import SendWindow
from relay.errors import FencedError, JournalError
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
from relay.primitives.rate_meter import RateMeter

_log = logging.getLogger(__name__)

# Reading stops while the journal has less room than one read and its records can take.
JOURNAL_RESERVE_BYTES = 4 * 1024 * 1024
TICK_S = 1.0
LOG_EVERY_TICKS = 10
RATE_HALF_LIFE_S = 1.5


class StreamActor(StreamActorFacade):
    def __init__(self, settings: StreamSettings, host: Host) -> None:
        super().__init__(settings, lambda: StreamRelay(settings, host, FreshStart(settings, host)))


class StreamRelay:
    """Everything of one stream, on one event loop; `start` says where it begins."""

    def __init__(self, settings: StreamSettings, host: Host, start: Start) -> None:
        self.settings = settings
        self._host = host
        self._start = start
        directory = journal_directory(settings)
        self._epochs = epoch_directory(settings, host)
        self.epoch = start.epoch
        self._journal: Journal | None = None
        if settings.journal:
            self._journal = Journal(directory, epoch=self.epoch, max_bytes=settings.journal_max_bytes)
        self._journal_limit_bytes = settings.journal_max_bytes - JOURNAL_RESERVE_BYTES
        self.window = SendWindow(
            max_messages=settings.queue.max_messages,
            max_bytes=settings.queue.max_bytes,
            overflow=settings.overflow,
        )
        self.intake = self._start_intake()
        self._clock = ClockStepDetector()
        self.feed = start.feed_for(self)
        memory = OpenGapsFile(directory, self.epoch) if settings.journal else None
        self.backfiller = Backfiller(
            settings,
            self.intake,
            self._deliver,
            memory,
            directory=host.socket_directory,
            crowded=self._has_no_room,
        )
        self.links = LinkKeeper(
            settings,
            host,
            self.window,
            self._journal,
            self.epoch,
            on_room=self._reconsider_reading,
            on_refused=self._refused,
            on_predecessor=self._position_known,
            on_torn=self._journal_lost,
        )
        # Only then can a read fill memory for good.
        self._blocks = settings.overflow is Overflow.BLOCK
        self._unwritten = bytearray()
        self._unwritten_offset = 0
        self._draining = False
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self._rate = RateMeter(RATE_HALF_LIFE_S)
        self._bytes_rate = RateMeter(RATE_HALF_LIFE_S)
        self._metrics = StreamMetrics(host.metrics, settings.spec.key)
        self._journal_problem = ""
        self._logged_state = StreamState.CONNECTING

    def _start_intake(self) -> Intake:
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
        """Until `drain`; whatever fails here ends the process, and Ray starts the next incarnation."""
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
        """Whatever fenced this incarnation, be it an epoch of a clock ahead, the next one goes above it."""
        try:
            await self.links.run()
        except FencedError as fenced:
            Journal.reserve_epochs_through(self._epochs, fenced.epoch)
            raise

    def accept(self, payloads: list[bytes], recv_ns: int) -> None:
        # Not by `recv_ns`: an overlap of two sockets hands over what it read some time ago.
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
        journal = self._journal
        if journal is not None:
            self._write(batch.encoded, batch.last_offset)
        self.feed.delivered()
        if pause_s := read_pause_s(len(payloads), *self.window.unanswered(recv_ns)):
            self.feed.pause_reads_for(pause_s)
        if self._blocks or (journal is not None and journal.used_bytes > self._journal_limit_bytes):
            self._reconsider_reading()

    def _accept_slow(self, payloads: list[bytes], recv_ns: int) -> None:
        taken = self.intake.accept(payloads, recv_ns)
        self._deliver(taken)
        if taken.accepted or taken.held:
            self.feed.delivered()
        if taken.gap is not None:
            self.backfiller.gap_found(taken)
        self._reconsider_reading()
        if taken.shutdown:
            self.feed.renew("the exchange announced its shutdown")

    def _deliver(self, taken: IntakeResult) -> None:
        """The publisher comes first where it can: it works while this process writes to the journal, and
        nothing that it says can be heard before that is done."""
        if self.window.has_spilled:
            self._store(taken)
            self.links.pump()
        else:
            self.links.pump()
            self._store(taken)

    def _store(self, taken: IntakeResult) -> None:
        if self._journal is not None and taken.journal:
            self._write(taken.journal, taken.last_offset)

    def _write(self, encoded: bytes, last_offset: int) -> None:
        assert self._journal is not None
        if self._unwritten:
            self._keep_unwritten(encoded, last_offset)
            return
        try:
            self._journal.append(encoded, last_offset)
        except JournalError as error:
            self._journal_problem = str(error)
            _log.error("%s; reading pauses until the journal takes records again", error)
            self._keep_unwritten(encoded, last_offset)
            self._reconsider_reading()

    def _keep_unwritten(self, encoded: bytes, last_offset: int) -> None:
        """What was read before the disk failed waits in memory; reading pauses, so it is one read's worth."""
        self._unwritten += encoded
        self._unwritten_offset = last_offset
        self.links.unwritten = True

    def _retry_unwritten(self) -> None:
        if not self._unwritten or self._journal is None:
            return
        try:
            self._journal.append(bytes(self._unwritten), self._unwritten_offset)
        except JournalError as error:
            self._journal_problem = str(error)
            return
        self._unwritten.clear()
        self._journal_problem = ""
        self.links.unwritten = False
        self.links.pump()

    def _reconsider_reading(self) -> None:
        if self._draining or self._unwritten or self._journal_is_short or self.window.blocked:
            self.feed.pause()
        elif self.feed.paused:
            self.feed.resume()

    def _has_no_room(self) -> bool:
        """There is no room, or none that costs nothing."""
        return self.feed.paused or (self.window.full and self.window.overflow is not Overflow.SPILL)

    def _refused(self, record: RecordBatch, reason: str) -> None:
        _log.error("NATS can never take event %d: %s", record.seq, reason)
        self._store(self.intake.refused(record.payloads[0], record.recv_ns, reason))

    def _position_known(self, stored: StoredPosition) -> None:
        self._start.position_known(self, stored)

    def preceded_by(self, stored: StoredPosition) -> None:
        """This event of another incarnation is stored last; what is missing behind it is asked for."""
        taken = self.intake.preceded_by(stored.event_id, stored.sent_ns)
        self._store(taken)
        self.backfiller.gap_found(taken)

    def _journal_lost(self, tear: JournalLoss) -> None:
        taken = self.intake.journal_lost(tear)
        self._store(taken)
        self.backfiller.gap_found(taken)

    @property
    def _journal_is_short(self) -> bool:
        return self._journal is not None and self._journal.used_bytes > self._journal_limit_bytes

    @property
    def problem(self) -> str:
        """What somebody has to mend, as a sentence; empty while there is nothing."""
        if self._journal_problem:
            return f"{self._journal_problem}; {self.settings.spec.key} reads nothing until it can be written"
        if self._journal_is_short:
            return (
                f"the journal of {self.settings.spec.key} is full; it reads nothing until NATS takes events"
            )
        return ""

    async def _tick(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            ticks += 1
            self.feed.check(time.monotonic())
            self._retry_unwritten()
            self._reconsider_reading()
            self._measure()
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

    def _measure(self) -> None:
        now = time.monotonic()
        self._rate.update(self.window.counts.received - self.window.counts.recovered, now)
        self._bytes_rate.update(self.intake.received_bytes, now)

    def assign(self, assignment: Assignment) -> None:
        self.links.assign(assignment)

    async def drain(self, deadline_s: float) -> StreamStats:
        """Reading stops first; then what is held is flushed, until the deadline."""
        self._draining = True
        if self._tasks:
            self._tasks[0].cancel()
        self.feed.close("draining")
        self.backfiller.stop()
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline_s):
                await self.links.settled()
        except TimeoutError:
            _log.warning("%d events are left after %.0f s", self.stats().backlog_count, deadline_s)
        self.links.close()
        for task in self._tasks:
            task.cancel()
        self._stopped = True
        if self._journal is not None:
            self._retry_unwritten()
            self._journal.close()
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
        books, spec, now = self.window.counts, self.settings.spec, time.monotonic()
        oldest_ns = self.window.oldest_recv_ns()
        last_data_at = self.feed.last_data_at
        latency, relayed = self.links.latency.merged(now), self.links.relay_latency.merged(now)
        return StreamStats(
            stream=spec.name,
            venue=spec.venue.value,
            symbol=spec.symbol,
            channel=spec.channel,
            state=self._state(),
            overflow=self.settings.overflow,
            epoch=self.epoch,
            pid=os.getpid(),
            node=self._host.node,
            publisher=self.links.publisher,
            linked=self.links.linked,
            received=books.received,
            recovered=books.recovered,
            acknowledged=books.acknowledged,
            queued=self.window.queued,
            in_flight=self.window.in_flight,
            spilled=books.spilled,
            conflated=books.conflated,
            dropped=books.dropped,
            rejected=books.rejected,
            repeated=books.repeated,
            lost=self.intake.lost,
            healed=self.intake.healed,
            repaired=self.intake.repaired,
            reconnects=self.feed.reconnects,
            rotations=self.feed.rotations,
            silences=self.feed.silences,
            unaligned=self.feed.unaligned,
            failovers=self.links.failovers,
            backlog_bytes=self.window.memory_bytes,
            backlog_age_s=max(0.0, (time.time_ns() - oldest_ns) / 1e9) if oldest_ns else 0.0,
            journal_bytes=self._journal.used_bytes if self._journal else 0,
            last_data_age_s=None if last_data_at is None else now - last_data_at,
            rate_per_s=self._rate.rate_per_s,
            bytes_per_s=self._bytes_rate.rate_per_s,
            latency_p50_ms=_ms(latency.quantile(0.5)),
            latency_p99_ms=_ms(latency.quantile(0.99)),
            latency_max_ms=_ms(latency.max_ns or None),
            relay_latency_p50_ms=_ms(relayed.quantile(0.5)),
            relay_latency_p99_ms=_ms(relayed.quantile(0.99)),
            assignment_version=self.links.assignment.version if self.links.assignment else 0,
            subscribed_at_ns=self.feed.subscribed_at_ns,
            first_data_at_ns=self.feed.first_data_at_ns,
            gaps=self.intake.losses,
            journal_max_bytes=self.settings.journal_max_bytes if self._journal else 0,
            last_error=self._journal_problem or self.feed.last_error,
            problem=self.problem,
        )


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e6


def status_line(stats: StreamStats) -> str:
    p99 = "-" if stats.latency_p99_ms is None else f"{stats.latency_p99_ms:.2f}"
    return (
        f"{stats.stream} {stats.state} backlog={stats.backlog_count} age_s={stats.backlog_age_s:.2f}"
        f" in={stats.rate_per_s:.0f}/s p99_ms={p99} acknowledged={stats.acknowledged} lost={stats.lost}"
        f" publisher={stats.publisher or '-'}"
    )
