"""The limit on connection attempts, and refusals on demand."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from relay.errors import UsageError

# Binance counts connection attempts per address over five minutes.
_WINDOW_S = 300.0
HANG, RESET = "hang", "reset"


@dataclass(frozen=True, slots=True)
class Refusal:
    """`how` is an HTTP status from 400 on, `hang` (never answer) or `reset` (end the TCP connection)."""

    how: int | str
    retry_after_s: int | None = None


class HandshakeLimiter:
    """Counts every attempt, refused ones included, and decides whether to refuse it."""

    def __init__(self, limit: int) -> None:
        self.attempts = 0
        self._limit = limit
        self._recent_s: deque[float] = deque()
        self._refusal: Refusal | None = None
        self._left: int | None = None

    def refuse(self, refusal: Refusal, count: int | None) -> None:
        """Refuse the next `count` attempts, or all until `accept`."""
        how = refusal.how
        if how not in (HANG, RESET) and not (isinstance(how, int) and 400 <= how < 600):
            raise UsageError(f"{how} is no way to refuse; use an HTTP status from 400 on, {HANG} or {RESET}")
        self._refusal, self._left = refusal, count

    def accept(self) -> None:
        self._refusal, self._left = None, None

    @property
    def accepting(self) -> bool:
        return self._refusal is None

    def recent(self, now_s: float) -> int:
        """Attempts of the last five minutes."""
        while self._recent_s and self._recent_s[0] <= now_s - _WINDOW_S:
            self._recent_s.popleft()
        return len(self._recent_s)

    def admit(self, now_s: float) -> Refusal | None:
        """Count one attempt; None accepts it."""
        self.attempts += 1
        self._recent_s.append(now_s)
        if self.recent(now_s) > self._limit:
            return Refusal(429, int(self._recent_s[0] + _WINDOW_S - now_s) + 1)
        refusal = self._refusal
        if refusal is not None and self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self.accept()
        return refusal
