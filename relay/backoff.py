"""When to try again: back-off of one connection, and how often things may be done; pure."""

from __future__ import annotations

from collections import deque
from random import Random

# The first retry comes at once or nearly so: most cuts are over before it.
FIRST_RETRY_S = 0.5


class Backoff:
    """Capped exponential delays with full jitter: uniform from 0 to `min(cap_s, base_s * 2**n)`, for ever.

    Full jitter spreads clients that were cut off together better than any fixed fraction
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """

    def __init__(self, base_s: float, cap_s: float, rng: Random) -> None:
        self._first_s = min(base_s, cap_s, FIRST_RETRY_S)
        self._cap_s = cap_s
        self._rng = rng
        self._ceiling_s = self._first_s

    def next_s(self) -> float:
        delay_s = self._rng.uniform(0.0, self._ceiling_s)
        self._ceiling_s = min(self._cap_s, 2 * self._ceiling_s)
        return delay_s

    def reset(self) -> None:
        """The connection proved itself: begin anew."""
        self._ceiling_s = self._first_s


class Allowance:
    """At most `count` in any half-open window of `window_s`; what is refused is not remembered."""

    def __init__(self, count: int, window_s: float) -> None:
        self._window_s = window_s
        self._taken: deque[float] = deque(maxlen=count)

    def take(self, now: float) -> bool:
        taken = self._taken
        if len(taken) == taken.maxlen and now < taken[0] + self._window_s:
            return False
        taken.append(now)
        return True


class ConnectBudget:
    """At most `attempts` in any half-open window of `window_s`, for a stream that is on its own.

    Reservations are served in the order in which they were asked for; one that is not used is spent all the
    same.
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
