"""Asks REST about a stream's holes: at once while later events are held up, patiently once they have gone on.

One request at a time. What holds up the stream comes first; what is older waits for its turn, for the request
weight, and for the exchange's own `Retry-After`.
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

# How long a hole may hold up what was read behind it.
HOLD_S = 2.0
# REST shows a trade a moment after the sockets do.
RETRY_BASE_S, RETRY_CAP_S = 0.1, 30.0
# How long old holes wait for room before they look again.
CROWDED_S = 1.0
# Binance keeps futures' aggregate trades for a day or two, but nobody waits that long.
GIVE_UP_AFTER_S = 3600.0
MAX_JOBS = 64
LATE = f"REST did not give these ids within {HOLD_S:g} s; what it gives later goes to the subject of repairs"
DRAINED = "the stream was stopped before REST gave these ids; the next start asks again"


class _Job:
    """One hole, and when to ask about it next."""

    def __init__(self, filling: GapFill, now: float) -> None:
        self.filling = filling
        self.hole = filling.hole
        self.ask_at = now
        self.end_at = now + GIVE_UP_AFTER_S
        self.backoff = Backoff(RETRY_BASE_S, RETRY_CAP_S, Random())


class Backfiller:
    """`put` stores and sends what the intake made of an answer. While the stream is `crowded`, old holes
    wait. `memory`, where there is one, has the open holes of the incarnation before, and keeps those of this
    one. Use from one event loop."""

    def __init__(
        self,
        settings: StreamSettings,
        intake: Intake,
        put: Callable[[IntakeResult], None],
        memory: OpenGapsFile | None,
        *,
        directory: Path,
        crowded: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._put = put
        self._crowded = crowded
        self._client = RestClient(settings.rest_url, settings.api_key_file)
        self._weight = RequestWeight(settings.spec.venue, settings.rest_sharers)
        self._stay_away = RestCooldownFile(directory, settings.rest_url)
        self._memory = memory if settings.heal and settings.spec.healable else None
        self._jobs = [self._job(hole) for hole in self._memory.load()] if self._memory else []
        self._remembered: list[Gap] = []
        # The one whose answer is waited for.
        self._asked: _Job | None = None
        self._wake = asyncio.Event()
        self._hold_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """For ever; without a hole it sleeps."""
        try:
            self._remember()
            if self._intake.holding:
                # What came before this incarnation is not known yet, and may never be.
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
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _next(self, now: float) -> tuple[_Job | None, float]:
        """The job whose turn it is, and how long until then; what holds up the stream goes first."""
        for job in [each for each in self._jobs if each.end_at <= now]:
            self._give_up(job, "REST did not give the rest in an hour")
        turns = [(max(job.ask_at - now, self._wait_s(job, now)), not self._urgent(job)) for job in self._jobs]
        if not turns:
            return None, GIVE_UP_AFTER_S
        urgent = [turn for turn in turns if not turn[1]]
        best = min(urgent) if urgent else min(turns)
        return self._jobs[turns.index(best)], max(0.0, best[0])

    def _wait_s(self, job: _Job, now: float) -> float:
        weight_s = self._weight.wait_s(job.filling.query().weight, now)
        crowded_s = CROWDED_S if not self._urgent(job) and self._crowded() else 0.0
        return max(weight_s, crowded_s, self._stay_away.remaining_s(now))

    def _urgent(self, job: _Job) -> bool:
        return self._intake.gap is job.hole

    def gap_found(self, taken: IntakeResult) -> None:
        """Call with all that the intake gives; takes up its hole."""
        if taken.gap is None:
            return
        job = self._job(taken.gap)
        _log.warning("ids %d to %d are missing; asking REST", taken.gap.first_id, taken.gap.last_id)
        self._jobs.append(job)
        if len(self._jobs) > MAX_JOBS:
            self._give_up(self._jobs[0], f"more than {MAX_JOBS} holes wait for REST")
        if self._urgent(job):
            self._limit_hold()
            if self._asked is not None:
                self._client.interrupt()
        self._remember()
        self._wake.set()

    def _job(self, hole: Gap) -> _Job:
        has_key = self._settings.api_key_file is not None
        return _Job(GapFill(self._settings.spec, hole, has_key=has_key), time.monotonic())

    def _remember(self) -> None:
        """The next incarnation finds by itself what holds up the stream, and nothing of the rest."""
        holes = [
            replace(job.hole, first_id=job.filling.next_id) for job in self._jobs if not self._urgent(job)
        ]
        if self._memory is None or holes == self._remembered:
            return
        self._remembered = holes
        try:
            self._memory.save(holes)
        except OSError as error:
            _log.error("the open holes cannot be kept for the next start: %s", error)

    def _limit_hold(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        loop = asyncio.get_running_loop()
        self._hold_timer = loop.call_later(HOLD_S, self._end_hold, self._intake.gap, LATE)

    def _end_hold(self, hole: Gap | None, reason: str) -> None:
        if self._intake.holding and self._intake.gap is hole:
            self._took(self._intake.end_hold(reason))
            self._remember()
            self._wake.set()

    def _took(self, taken: IntakeResult) -> None:
        self._put(taken)
        self.gap_found(taken)

    async def _ask(self, job: _Job) -> None:
        try:
            answer = await self._get(job)
            pieces = job.filling.answered(answer.rows)
        except RestError as error:
            self._failed(job, error)
        except (RestRefusedError, UnfitAnswerError) as error:
            self._give_up(job, str(error))
        else:
            # A job that was given up meanwhile may have its answer all the same.
            self._heard(job, answer, pieces)

    async def _get(self, job: _Job) -> Answer:
        query = job.filling.query()
        self._weight.spend(query.weight, time.monotonic())
        self._asked = job
        try:
            return await self._client.get(query)
        finally:
            self._asked = None

    def _failed(self, job: _Job, error: RestError) -> None:
        now = time.monotonic()
        _log.warning("%s", error)
        if error.limited:
            self._be_patient(REFUSED_S if error.retry_after_s is None else error.retry_after_s)
        job.ask_at = now + job.backoff.next_s()

    def _be_patient(self, seconds: float) -> None:
        """The exchange's word is for the whole address."""
        now = time.monotonic()
        self._weight.close_for(seconds, now)
        try:
            self._stay_away.extend(seconds, now)
        except OSError as error:
            _log.error("other streams cannot be told to leave REST alone: %s", error)

    def _heard(self, job: _Job, answer: Answer, pieces: list[FillRange]) -> None:
        now = time.monotonic()
        if answer.used_weight is not None:
            self._weight.report_used(answer.used_weight, now)
        urgent = self._urgent(job)
        if urgent:
            self._took(self._intake.fill(pieces, time.time_ns()))
        elif pieces:
            self._took(self._intake.repair(job.hole, pieces, time.time_ns()))
        if job.filling.done:
            self._give_up(job, job.filling.shortage)
        elif job.filling.stalled:
            self._give_up(job, "REST does not have these ids")
        else:
            job.ask_at = now if pieces else now + job.backoff.next_s()
            self._remember()

    def _give_up(self, job: _Job, reason: str) -> None:
        """The job is over; what REST did not tell stays lost, for this `reason`."""
        if job in self._jobs:
            self._jobs.remove(job)
        hole = job.hole
        if job.filling.done:
            _log.info("ids %d to %d: REST has told all it knows of them", hole.first_id, hole.last_id)
        else:
            _log.error("ids %d to %d are not healed: %s", hole.first_id, hole.last_id, reason)
        self._end_hold(job.hole, reason)
        self._remember()

    def stop(self) -> None:
        """Hold up nothing any more."""
        while self._intake.holding:
            self._took(self._intake.end_hold(DRAINED))
        self._remember()

    def close(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        self._client.close()
