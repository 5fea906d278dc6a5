"""A rate that follows its input with a half-life; pure."""

from __future__ import annotations

from math import expm1, log


class RateMeter:
    """Smoothed rate of a rising total: what is `half_life_s` old counts half. Zero until the second
    update."""

    def __init__(self, half_life_s: float = 2.0) -> None:
        self.rate_per_s = 0.0
        self._decay_per_s = log(2) / half_life_s
        self._last: tuple[float, float] | None = None
        self._is_measured = False

    def update(self, total: float, now: float) -> None:
        """A total below the last one was reset; the interval in which that happened is left out."""
        if self._last is None or total < self._last[0]:
            self._last = (total, now)
            return
        last_total, last_now = self._last
        elapsed_s = now - last_now
        if elapsed_s <= 0:
            return
        rate_per_s = (total - last_total) / elapsed_s
        weight = -expm1(-self._decay_per_s * elapsed_s) if self._is_measured else 1.0
        self.rate_per_s += weight * (rate_per_s - self.rate_per_s)
        self._is_measured = True
        self._last = (total, now)
