"""Asks REST for the events that a stream missed, one request at a time.

A gap that holds up later events goes first and is asked about at once. Older gaps wait for their turn, for
the request weight, and for the exchange's `Retry-After`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from relay.adapters.http import Answer, RestClient
from relay.adapters.waiting import wait_until_set
from relay.binance.backfill import GapFill
from relay.binance.request_weight import REFUSED_S, RequestWeight
from relay.binance.rest_cooldown_file import RestCooldownFile
from relay.config import StreamSettings
from relay.errors import RestError, RestRefusedError, UnfitAnswerError
from relay.intake.intake import Intake, IntakeResult
from relay.journal.open_gaps_file import OpenGapsFile
from relay.model.gap import FillRange, Gap
from relay.primitives.backoff import Backoff

_log = logging.getLogger(__name__)

# How long a gap may hold up the events read after it.
HOLD_S = 2.0
# REST shows a trade a moment after the sockets do.
RETRY_BASE_S, RETRY_CAP_S = 0.1, 30.0
# How long older gaps wait before it is checked again whether the stream has room.
NO_ROOM_WAIT_S = 1.0
# Binance keeps aggregate trades of futures for a day or two, but consumers do not wait that long for a
# repair.
GIVE_UP_AFTER_S = 3600.0
MAX_JOBS = 64
LATE = f"REST did not give these ids within {HOLD_S:g} s; what it gives later goes to the subject of repairs"
DRAINED = "the stream was stopped before REST gave these ids; the next start asks again"


class _Job:
    """The work on one gap, and when to ask about it next, in monotonic seconds."""

    def __init__(self, fill: GapFill, now: float) -> None:
        self.fill = fill
        self.gap = fill.gap
        self.ask_at = now
        self.end_at = now + GIVE_UP_AFTER_S
        self.backoff = Backoff(RETRY_BASE_S, RETRY_CAP_S, Random())


class Backfiller:
    """`put` stores and sends what the intake made of an answer. While `has_no_room` returns true, older
    gaps wait.

    `open_gaps` has the gaps that the incarnation before left open, and keeps those of this one; None without
    a journal. Use from one event loop.
    """

    def __init__(
        self,
        settings: StreamSettings,
        intake: Intake,
        put: Callable[[IntakeResult], None],
        open_gaps: OpenGapsFile | None,
        *,
        directory: Path,
        has_no_room: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._put = put
        self._has_no_room = has_no_room
        self._client = RestClient(settings.rest_url, settings.api_key_file)
        self._weight = RequestWeight(settings.spec.venue, settings.rest_sharers)
        self._cooldown = RestCooldownFile(directory, settings.rest_url)
        self._open_gaps = open_gaps if settings.heal and settings.spec.healable else None
        self._jobs = [self._job(gap) for gap in self._open_gaps.load()] if self._open_gaps else []
        self._saved: list[Gap] = []
        # The job whose request is running.
        self._asked: _Job | None = None
        self._wake = asyncio.Event()
        self._hold_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Runs until it is cancelled."""
        try:
            self._save_open_gaps()
            if self._intake.holding:
                # Events are held until NATS says which event it stored last; it may never answer.
                self._limit_hold()
            while True:
                job, wait_s = self._next(time.monotonic())
                if job is None or wait_s > 0:
                    await self._sleep(wait_s)
                else:
                    await self._ask(job)
        finally:
            self.close()

    async def _sleep(self, seconds: float) -> None:
        self._wake.clear()
        await wait_until_set(self._wake, seconds)

    def _next(self, now: float) -> tuple[_Job | None, float]:
        """The job whose turn is next, and the seconds until then; a gap that holds up the stream goes
        first."""
        for job in [each for each in self._jobs if each.end_at <= now]:
            self._give_up(job, "REST did not give the rest in an hour")
        turns = [(max(job.ask_at - now, self._wait_s(job, now)), not self._urgent(job)) for job in self._jobs]
        if not turns:
            return None, GIVE_UP_AFTER_S
        urgent = [turn for turn in turns if not turn[1]]
        best = min(urgent) if urgent else min(turns)
        return self._jobs[turns.index(best)], max(0.0, best[0])

    def _wait_s(self, job: _Job, now: float) -> float:
        weight_s = self._weight.wait_s(job.fill.query().weight, now)
        room_s = NO_ROOM_WAIT_S if not self._urgent(job) and self._has_no_room() else 0.0
        return max(weight_s, room_s, self._cooldown.remaining_s(now))

    def _urgent(self, job: _Job) -> bool:
        return self._intake.gap is job.gap

    def gap_found(self, result: IntakeResult) -> None:
        """Call with every result of the intake; starts to ask about its gap, if there is one."""
        if result.gap is None:
            return
        job = self._job(result.gap)
        _log.warning("ids %d to %d are missing; asking REST", result.gap.first_id, result.gap.last_id)
        self._jobs.append(job)
        if len(self._jobs) > MAX_JOBS:
            self._give_up(self._jobs[0], f"more than {MAX_JOBS} gaps wait for REST")
        if self._urgent(job):
            self._limit_hold()
            if self._asked is not None:
                self._client.interrupt()
        self._save_open_gaps()
        self._wake.set()

    def _job(self, gap: Gap) -> _Job:
        has_key = self._settings.api_key_file is not None
        return _Job(GapFill(self._settings.spec, gap, has_key=has_key), time.monotonic())

    def _save_open_gaps(self) -> None:
        """For the next incarnation, which finds only the gap that holds up the stream by itself."""
        gaps = [replace(job.gap, first_id=job.fill.next_id) for job in self._jobs if not self._urgent(job)]
        if self._open_gaps is None or gaps == self._saved:
            return
        self._saved = gaps
        try:
            self._open_gaps.save(gaps)
        except OSError as error:
            _log.error("the open gaps cannot be kept for the next start: %s", error)

    def _limit_hold(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        loop = asyncio.get_running_loop()
        self._hold_timer = loop.call_later(HOLD_S, self._end_hold, self._intake.gap, LATE)

    def _end_hold(self, gap: Gap | None, reason: str) -> None:
        if self._intake.holding and self._intake.gap is gap:
            self._pass_on(self._intake.end_hold(reason))
            self._save_open_gaps()
            self._wake.set()

    def _pass_on(self, result: IntakeResult) -> None:
        self._put(result)
        self.gap_found(result)

    async def _ask(self, job: _Job) -> None:
        try:
            answer = await self._get(job)
            ranges = job.fill.answered(answer.rows)
        except RestError as error:
            self._retry_later(job, error)
        except (RestRefusedError, UnfitAnswerError) as error:
            self._give_up(job, str(error))
        else:
            # Also for a job that was given up while its request ran: what REST gave is used.
            self._apply(job, answer, ranges)

    async def _get(self, job: _Job) -> Answer:
        query = job.fill.query()
        self._weight.spend(query.weight, time.monotonic())
        self._asked = job
        try:
            return await self._client.get(query)
        finally:
            self._asked = None

    def _retry_later(self, job: _Job, error: RestError) -> None:
        now = time.monotonic()
        _log.warning("%s", error)
        if error.limited:
            self._back_off(REFUSED_S if error.retry_after_s is None else error.retry_after_s)
        job.ask_at = now + job.backoff.next_s()

    def _back_off(self, seconds: float) -> None:
        """The exchange limits the whole address, so all streams of the node stop asking."""
        now = time.monotonic()
        self._weight.close_for(seconds, now)
        try:
            self._cooldown.extend(seconds, now)
        except OSError as error:
            _log.error("other streams cannot be told to stop asking REST: %s", error)

    def _apply(self, job: _Job, answer: Answer, ranges: list[FillRange]) -> None:
        now = time.monotonic()
        if answer.used_weight is not None:
            self._weight.report_used(answer.used_weight, now)
        urgent = self._urgent(job)
        if urgent:
            self._pass_on(self._intake.fill(ranges, time.time_ns()))
        elif ranges:
            self._pass_on(self._intake.repair(job.gap, ranges, time.time_ns()))
        if job.fill.done:
            self._give_up(job, job.fill.shortage)
        elif job.fill.stalled:
            self._give_up(job, "REST does not have these ids")
        else:
            job.ask_at = now if ranges else now + job.backoff.next_s()
            self._save_open_gaps()

    def _give_up(self, job: _Job, reason: str) -> None:
        """The job is over; what REST did not give stays lost, for this `reason`."""
        if job in self._jobs:
            self._jobs.remove(job)
        gap = job.gap
        if job.fill.done:
            _log.info("ids %d to %d: REST has given all it has of them", gap.first_id, gap.last_id)
        else:
            _log.error("ids %d to %d are not healed: %s", gap.first_id, gap.last_id, reason)
        self._end_hold(job.gap, reason)
        self._save_open_gaps()

    def stop(self) -> None:
        """Hold up no event any more."""
        while self._intake.holding:
            self._pass_on(self._intake.end_hold(DRAINED))
        self._save_open_gaps()

    def close(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        self._client.close()
