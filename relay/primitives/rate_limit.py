"""Limits on how often something may happen; pure."""

from __future__ import annotations

from collections import deque


class SlidingWindowLimiter:
    """At most `count` in any half-open window of `window_s`; what is refused is not remembered."""

    def __init__(self, count: int, window_s: float) -> None:
        self._window_s = window_s
        self._granted: deque[float] = deque(maxlen=count)

    def try_acquire(self, now: float) -> bool:
        taken = self._granted
        if len(taken) == taken.maxlen and now < taken[0] + self._window_s:
            return False
        taken.append(now)
        return True


class ReservingLimiter:
    """At most `attempts` in any half-open window of `window_s`, each reserved in advance.

    Reservations are granted in the order of the calls; one that is not used counts too.
    """

    def __init__(self, attempts: int, window_s: float) -> None:
        self._window_s = window_s
        self._granted: deque[float] = deque(maxlen=attempts)

    def reserve(self, now: float) -> float:
        """Seconds to wait before the attempt, which is reserved by this call."""
        granted = self._granted
        at = max(now, granted[-1]) if granted else now
        if len(granted) == granted.maxlen:
            at = max(at, granted[0] + self._window_s)
        granted.append(at)
        return at - now
