"""When to retry a connection; pure."""

from __future__ import annotations

from random import Random

# The first retry comes within this time: most interruptions are over by then.
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
        """The connection worked, so the next delay is short again."""
        self._ceiling_s = self._first_s
