"""The budget of connection attempts that all streams on one IP address share; pure.

Binance bans an address above 300 attempts in five minutes, refused ones included. Two rolling windows keep
the attempts far below that: the whole budget in five minutes, and a fifth of it in one minute for attempts
that have not opened a connection. So a hundred streams that lose their connections together are back within
seconds when the exchange accepts them, and make 30 attempts a minute in total while it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import orjson

WINDOW_S, STORM_S = 300.0, 60.0
STORM_SHARE = 5
# Streams report once a minute; one that has not reported for this long is no longer counted.
ALIVE_S = 180.0
REPORT_S = 60.0
# Binance's longest ban.
MAX_CLOSED_S = 3 * 86400.0


class AttemptOutcome(IntEnum):
    PENDING = 0
    OPENED = 1
    FAILED = 2


@dataclass(slots=True)
class Attempt:
    at: float
    number: int
    outcome: AttemptOutcome


@dataclass(frozen=True, slots=True)
class BudgetClaim:
    """What one stream knows of the budget. `streams` is how many the relay had when this one was made.

    With `shared` all nodes have one address, and each node gets the part of its streams. The newest of a
    node's streams knows the number best; a node without a new one may have an old, smaller number, for which
    half of Binance's limit is left unused.
    """

    stream: str
    total: int
    streams: int
    shared: bool

    @property
    def alone(self) -> int:
        """The attempts in five minutes that are safe for a stream that knows nothing of the others."""
        return max(1, self.total // max(1, self.streams))


class ConnectBudget:
    """The attempts of one node's streams. Times are of a clock that all its processes share."""

    def __init__(self) -> None:
        self._attempts: list[Attempt] = []
        # For each stream: when it last reported, and how many streams it knows of.
        self._streams: dict[str, tuple[float, int]] = {}
        self._closed_until = 0.0
        self._number = 0

    def report(self, claim: BudgetClaim, now: float) -> None:
        """The stream is running, and counts for the node's part."""
        self._forget(now)
        seen = self._streams.get(claim.stream)
        if seen is None or now - seen[0] >= REPORT_S or seen[1] != claim.streams:
            self._streams[claim.stream] = (now, claim.streams)

    def try_acquire(self, claim: BudgetClaim, now: float, *, low_priority: bool) -> float:
        """Seconds until it is worth asking again; 0 allows an attempt, whose number is `granted`.

        A `low_priority` attempt can wait: it may use half of the budget.
        """
        self.report(claim, now)
        limit = self.limit(claim) // (2 if low_priority else 1)
        made = [one.at for one in self._attempts]
        fruitless = [one.at for one in self._attempts if one.outcome is not AttemptOutcome.OPENED]
        wait_s = max(
            0.0,
            self._closed_until - now,
            _full_since(made, limit) + WINDOW_S - now,
            _full_since(fruitless, limit // STORM_SHARE) + STORM_S - now,
        )
        if wait_s == 0.0:
            self._number += 1
            self._attempts.append(Attempt(now, self._number, AttemptOutcome.PENDING))
        return wait_s

    @property
    def granted(self) -> int:
        return self._number

    def limit(self, claim: BudgetClaim) -> int:
        """Attempts in five minutes for this node."""
        if not claim.shared:
            return claim.total
        everywhere = max(known for _, known in self._streams.values())
        here = len(self._streams)
        return max(1, claim.total * here // max(everywhere, here))

    def record_outcome(self, number: int, outcome: AttemptOutcome) -> None:
        for attempt in self._attempts:
            if attempt.number == number:
                attempt.outcome = outcome

    def close(self, until: float, now: float) -> None:
        """The exchange demands that this address makes no attempt before `until`."""
        self._closed_until = max(self._closed_until, min(until, now + MAX_CLOSED_S))

    def _forget(self, now: float) -> None:
        """Drop what is too old to count, and what is later than `now`: written before the machine was
        restarted."""
        attempts = self._attempts
        if attempts and not (now - WINDOW_S < attempts[0].at and attempts[-1].at <= now):
            self._attempts = [one for one in attempts if now - WINDOW_S < one.at <= now]
        self._streams = {
            stream: seen for stream, seen in self._streams.items() if now - ALIVE_S < seen[0] <= now
        }
        if self._closed_until > now + MAX_CLOSED_S:
            self._closed_until = 0.0

    def encode(self) -> bytes:
        attempts = [(one.at, one.number, one.outcome) for one in self._attempts]
        return orjson.dumps((attempts, self._streams, self._closed_until, self._number))

    @classmethod
    def decode(cls, encoded: bytes) -> ConnectBudget:
        """An unreadable file starts an empty budget; that is safe, as the budget is half of what Binance
        allows."""
        log = cls()
        try:
            attempts, streams, closed_until, number = orjson.loads(encoded)
            log._attempts = [Attempt(float(at), int(each), AttemptOutcome(how)) for at, each, how in attempts]
            log._streams = {str(name): (float(at), int(known)) for name, (at, known) in streams.items()}
            log._closed_until, log._number = float(closed_until), int(number)
        except (ValueError, TypeError, AttributeError):
            return cls()
        return log


def _full_since(times: list[float], limit: int) -> float:
    """The time of the attempt that must leave its window before another one is allowed; -inf if none must.

    One attempt is always allowed: a limit that is rounded to 0 would stop a stream for ever.
    """
    limit = max(1, limit)
    return times[-limit] if len(times) >= limit else float("-inf")
