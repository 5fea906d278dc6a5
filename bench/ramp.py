"""Finds the highest rate that a system holds. Pure: the caller runs each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.measurement import Measurement
from bench.report import RampResult

# One failure may come from other load on the machine; two end the ramp, and show how loss grows beyond the
# limit.
_MAX_FAILURES = 2


def run_ramp(
    system: str,
    rates: Sequence[int],
    step_s: float,
    hold_s: float,
    run: Callable[[float, float], Measurement],
) -> RampResult:
    """Short steps of rising rates until two failed, then the highest rate that holds for the full time."""
    steps: list[Measurement] = []
    passed: list[int] = []
    failures = 0
    for rate in rates:
        step = run(rate, step_s)
        if not step.exchange_kept_up:
            break
        steps.append(step)
        if step.held:
            passed.append(rate)
        else:
            failures += 1
        if failures == _MAX_FAILURES:
            break
    for rate in reversed(passed):
        held = run(rate, hold_s)
        if held.held and held.exchange_kept_up:
            return RampResult(system, tuple(steps), held)
    return RampResult(system, tuple(steps), None)
