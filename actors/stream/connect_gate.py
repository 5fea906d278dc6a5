"""Waits for a stream's turn to connect, by the node's shared budget, or alone by a safe part of it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from relay.binance.connect_budget import REPORT_S, WINDOW_S, AttemptOutcome, BudgetClaim, ConnectBudget
from relay.binance.connect_budget_file import ConnectBudgetFile
from relay.errors import FeedError
from relay.primitives.rate_limit import ReservingLimiter

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

# Attempts of other streams end meanwhile, so the budget may have room sooner than it said.
ASK_AGAIN_S = 1.0
# Other processes hold the lock for well under a millisecond; a process that was stopped may hold it for ever.
LOCK_TRIES, LOCK_PAUSE_S = 30, 0.01


class Permit(NamedTuple):
    """Permission for one attempt; `number` is None if it is not counted in the node's budget."""

    number: int | None


class ConnectGate:
    """One for each stream. Without the budget file the stream keeps to `claim.alone` attempts in five
    minutes."""

    def __init__(self, file: ConnectBudgetFile, claim: BudgetClaim) -> None:
        self._file = file
        self._claim = claim
        self._alone = ReservingLimiter(claim.alone, WINDOW_S)
        self._reported_at = float("-inf")

    async def admit(self, *, low_priority: bool) -> Permit:
        """Returns when an attempt may be made; the caller has to make it at once.

        Raises FeedError if the budget has nothing left for an attempt that can wait (`low_priority`).
        """
        while True:
            wait_s, permit = await self._ask(low_priority)
            if permit is not None:
                await asyncio.sleep(wait_s)
                return permit
            if low_priority:
                raise FeedError("the connect budget has no room for a second connection now")
            _log.info("the connect budget is used up; asking again for up to %.0f s", wait_s)
            await asyncio.sleep(min(wait_s, ASK_AGAIN_S) * random.uniform(0.5, 1.0))

    async def _ask(self, low_priority: bool) -> tuple[float, Permit | None]:
        def ask(budget: ConnectBudget) -> tuple[float, Permit | None]:
            wait_s = budget.try_acquire(self._claim, time.monotonic(), low_priority=low_priority)
            return wait_s, None if wait_s else Permit(budget.granted)

        try:
            return await self._with_budget(ask)
        except OSError as error:
            _log.warning("no connect budget (%s): connecting within this stream's own part of it", error)
        return (WINDOW_S, None) if low_priority else (self._alone.reserve(time.monotonic()), Permit(None))

    async def record_outcome(self, permit: Permit, error: FeedError | None) -> None:
        """How the attempt ended; None is success. If that cannot be written, the attempt counts as failed."""
        number = permit.number
        if number is None:
            return

        def record(budget: ConnectBudget) -> None:
            now = time.monotonic()
            budget.record_outcome(number, AttemptOutcome.FAILED if error else AttemptOutcome.OPENED)
            if error is not None and error.retry_after_s is not None:
                budget.close(now + error.retry_after_s, now)

        try:
            await self._with_budget(record)
        except OSError as problem:
            _log.info("an attempt stays open in the connect budget: %s", problem)

    async def _with_budget(self, act: Callable[[ConnectBudget], _T]) -> _T:
        """Raises OSError."""
        for _ in range(LOCK_TRIES):
            with suppress(BlockingIOError), self._file.opened() as budget:
                return act(budget)
            await asyncio.sleep(LOCK_PAUSE_S * random.uniform(0.5, 1.5))
        raise TimeoutError("another process holds its lock")

    def report(self, now: float) -> None:
        """Call about once a second; reports once a minute that the stream is running."""
        if now - self._reported_at < REPORT_S:
            return
        try:
            with self._file.opened() as budget:
                budget.report(self._claim, now)
            self._reported_at = now
        except OSError as problem:
            _log.debug("not reported to the connect budget: %s", problem)
