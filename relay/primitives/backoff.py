"""When to try again: back-off of one connection, and how often things may be done; pure."""

from __future__ import annotations

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
