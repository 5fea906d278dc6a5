"""Whether the wall clock was set back, found by comparing it with monotonic time, which cannot be set;
pure."""

from __future__ import annotations

# NTP corrects larger differences by setting the clock; it slews smaller ones.
MIN_STEP_NS = 100_000_000


class ClockStepDetector:
    """Ask often: a slewed clock drifts a little between two calls, which must stay below MIN_STEP_NS."""

    def __init__(self) -> None:
        self._ahead_ns: int | None = None

    def set_back_ns(self, wall_ns: int, monotonic_ns: int) -> int:
        """By how much since the last call; 0 if it was not."""
        before_ns, self._ahead_ns = self._ahead_ns, wall_ns - monotonic_ns
        by_ns = 0 if before_ns is None else before_ns - self._ahead_ns
        return by_ns if by_ns >= MIN_STEP_NS else 0
