"""When a second socket of a stream takes over from the first, and when it was opened for nothing; pure.

Three causes: the connection is about to end by its age or by the exchange's word, and the second socket is
its successor; or it is silent, and the second one is a witness. Nothing is closed before this says so.
"""

from __future__ import annotations

from enum import Enum
from hashlib import sha256

from relay.feed.overlap import Overlap

# What one socket gets, another of the same address has within this.
GRACE_S = 0.5
# A leaving socket may lag; after this long without what its successor got, it is dead.
LAG_S = 1.0
# Without any event on the successor: the slowest periodic streams send every few seconds.
FIRST_DATA_S = 60.0
# From the successor's first event to the alignment, where the kind is not slower itself.
ALIGN_S = 10.0
# How long a witness listens before its silence counts too.
MIN_PROBE_S, MAX_PROBE_S = 2.0, 10.0
# Connections that were opened together are replaced apart, over the last tenth of their age.
STAGGER = 0.1


class HandoverCause(Enum):
    AGE = "age"
    SHUTDOWN = "shutdown"
    SILENCE = "silence"


class HandoverOutcome(Enum):
    JOIN = "join"
    """The two were aligned, or there is nothing to align: go on with the new one, without a seam."""
    REPLACE = "take over"
    """The old one is dead: go on with all that the new one brought; what came before it may be missing."""
    UNALIGNED = "give up"
    """Both send, and what they send cannot be aligned: go on with the new one, and say that it may be torn.
    """
    KEEP = "keep"
    """The old one is alive, and the new one is not, or not needed."""
    QUIET = "quiet"
    """Both are silent: so is the market."""


def rotation_age_s(key: str, rotate_after_s: float) -> float:
    """At which age the connection of the stream `key` is replaced, the same in every incarnation."""
    share = int.from_bytes(sha256(key.encode()).digest()[:4], "big") / 2**32
    return rotate_after_s * (1.0 - STAGGER * share)


class ConnectionHandover:
    """Once the new socket opened, ask `verdict` after each of the other calls, and now and then."""

    def __init__(self, overlap: Overlap, cause: HandoverCause, silence_limit_s: float | None) -> None:
        limit_s = silence_limit_s or ALIGN_S
        self.overlap = overlap
        self._is_probe = cause is HandoverCause.SILENCE
        self._probe_s = min(max(limit_s, MIN_PROBE_S), MAX_PROBE_S)
        self._align_s = max(ALIGN_S, limit_s)
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
        """Returns what is no event, to be passed on now."""
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
            if now - self._opened_at < FIRST_DATA_S:
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
        """The old one is over, so only the new one can still say where they meet."""
        if self.overlap.matched:
            return HandoverOutcome.JOIN
        if self._new_heard_at is None and now - self._opened_at < FIRST_DATA_S:
            return None
        # Whoever listened beside a silent socket has missed nothing of what it would have brought.
        side_by_side = ended_at - self._opened_at >= GRACE_S and not self._heard_since_opening
        return HandoverOutcome.JOIN if side_by_side else HandoverOutcome.REPLACE

    @property
    def _heard_since_opening(self) -> bool:
        return self._old_heard_at is not None and self._old_heard_at >= self._opened_at
