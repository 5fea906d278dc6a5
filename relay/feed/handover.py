"""When a stream's second connection replaces the first, and when it was not needed; pure.

There are three causes. The connection is about to end, by its age or because the exchange announced it: then
the second connection is its successor. Or the connection is silent: then the second one is a probe. The first
connection is closed only after `ConnectionHandover.outcome` says so.
"""

from __future__ import annotations

from enum import Enum
from hashlib import sha256

from relay.feed.overlap import Overlap
from relay.feed.timing import DEFAULT_TIMING, FeedTiming

# Two connections from the same address get the same events within this time.
GRACE_S = 0.5
# The old connection may lag; if it does not deliver its successor's events within this time, it is dead.
LAG_S = 1.0
# Connections that were opened together are replaced at different times, within the last tenth of their age.
STAGGER = 0.1


class HandoverCause(Enum):
    AGE = "age"
    SHUTDOWN = "shutdown"
    SILENCE = "silence"


class HandoverOutcome(Enum):
    JOIN = "join"
    """The two were aligned, or there is nothing to align: continue with the new one, without a gap."""
    REPLACE = "take over"
    """The old one is dead: continue with all events of the new one; events before them may be missing."""
    UNALIGNED = "give up"
    """Both send, and their events cannot be aligned: continue with the new one, and report that events may be
    missing."""
    KEEP = "keep"
    """The old one is alive, and the new one is not, or is not needed."""
    QUIET = "quiet"
    """Both are silent, so the market is quiet."""


def rotation_age_s(key: str, rotate_after_s: float) -> float:
    """At which age the connection of the stream `key` is replaced, the same in every incarnation."""
    share = int.from_bytes(sha256(key.encode()).digest()[:4], "big") / 2**32
    return rotate_after_s * (1.0 - STAGGER * share)


class ConnectionHandover:
    """Call `opened` once the new connection is open, then ask `outcome` after each other call and regularly.

    `now` is monotonic seconds everywhere.
    """

    def __init__(
        self,
        overlap: Overlap,
        cause: HandoverCause,
        silence_limit_s: float | None,
        timing: FeedTiming = DEFAULT_TIMING,
    ) -> None:
        limit_s = silence_limit_s or timing.align_s
        self.overlap = overlap
        self._is_probe = cause is HandoverCause.SILENCE
        self._first_data_s = timing.successor_data_s
        self._probe_s = min(max(limit_s, timing.min_probe_s), timing.max_probe_s)
        self._align_s = max(timing.align_s, limit_s)
        self._opened_at = 0.0
        self._old_ended_at: float | None = None
        self._old_heard_at: float | None = None
        self._new_heard_at: float | None = None

    def opened(self, now: float) -> None:
        self._opened_at = now

    def old_heard(self, payloads: list[bytes], now: float) -> None:
        if self.overlap.old(payloads):
            self._old_heard_at = now

    def old_ended(self, now: float) -> None:
        if self._old_ended_at is None:
            self._old_ended_at = now

    def new_heard(self, payloads: list[bytes], recv_ns: int, now: float) -> list[bytes]:
        """Returns the payloads that are no events."""
        rest = self.overlap.new(payloads, recv_ns)
        if self.overlap.holding and self._new_heard_at is None:
            self._new_heard_at = now
        return rest

    def outcome(self, now: float) -> HandoverOutcome | None:
        """None while it is open."""
        if self._old_ended_at is not None:
            return self._after_old_closed(self._old_ended_at, now)
        return self._of_probe(now) if self._is_probe else self._of_successor(now)

    def _of_probe(self, now: float) -> HandoverOutcome | None:
        if self._old_heard_at is not None:
            return HandoverOutcome.KEEP
        if self._new_heard_at is not None:
            return HandoverOutcome.REPLACE if now - self._new_heard_at >= GRACE_S else None
        return HandoverOutcome.QUIET if now - self._opened_at >= self._probe_s else None

    def _of_successor(self, now: float) -> HandoverOutcome | None:
        if self.overlap.aligned:
            return HandoverOutcome.JOIN
        if self._new_heard_at is None:
            if now - self._opened_at < self._first_data_s:
                return None
            return HandoverOutcome.KEEP if self._heard_since_opening else HandoverOutcome.JOIN
        waited_s = now - self._new_heard_at
        silent = self._old_heard_at is None or self._old_heard_at < self._new_heard_at
        if silent and not self.overlap.matched and waited_s >= LAG_S:
            return HandoverOutcome.REPLACE
        if waited_s < self._align_s and not self.overlap.hopeless:
            return None
        if self.overlap.matched and not self.overlap.hopeless:
            return HandoverOutcome.JOIN
        return HandoverOutcome.REPLACE if silent else HandoverOutcome.UNALIGNED

    def _after_old_closed(self, ended_at: float, now: float) -> HandoverOutcome | None:
        """Only the new connection can still bring events that align the two."""
        if self.overlap.matched:
            return HandoverOutcome.JOIN
        if self._new_heard_at is None and now - self._opened_at < self._first_data_s:
            return None
        # Both connections were open for a while and the old one brought nothing, so nothing was missed before
        # it ended: the new one has had every event since.
        side_by_side = ended_at - self._opened_at >= GRACE_S and not self._heard_since_opening
        return HandoverOutcome.JOIN if side_by_side else HandoverOutcome.REPLACE

    @property
    def _heard_since_opening(self) -> bool:
        return self._old_heard_at is not None and self._old_heard_at >= self._opened_at
