"""How the ramp is climbed. Pure: running a step is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.measurement import Measurement
from bench.report import Climb

# One failure may be a neighbour's doing; two end the climb, and show how loss grows beyond the limit.
_MOST_FAILURES = 2


def climb(
    system: str,
    rates: Sequence[int],
    step_s: float,
    hold_s: float,
    run: Callable[[float, float], Measurement],
) -> Climb:
    """Short steps upwards until two have failed, then the highest rate that still holds for the full time."""
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
        if failures == _MOST_FAILURES:
            break
    for rate in reversed(passed):
        held = run(rate, hold_s)
        if held.held and held.exchange_kept_up:
            return Climb(system, tuple(steps), held)
    return Climb(system, tuple(steps), None)
