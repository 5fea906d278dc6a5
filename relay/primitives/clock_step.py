"""Was the clock of the machine set back? Told by monotonic time, which nobody can set; pure."""

from __future__ import annotations

# What NTP corrects beyond this it sets, the rest it slews.
MIN_STEP_NS = 100_000_000


class ClockStepDetector:
    """Ask often: what is slewed between two questions counts for nothing."""

    def __init__(self) -> None:
        self._ahead_ns: int | None = None

    def set_back_ns(self, wall_ns: int, monotonic_ns: int) -> int:
        """By how much since the last question; 0 if it was not."""
        before_ns, self._ahead_ns = self._ahead_ns, wall_ns - monotonic_ns
        by_ns = 0 if before_ns is None else before_ns - self._ahead_ns
        return by_ns if by_ns >= MIN_STEP_NS else 0
