"""Since when a condition has held; pure."""

from __future__ import annotations


def held_since(before: float | None, holds: bool, now: float) -> float | None:
    """`before` is the previous answer; None while the condition does not hold."""
    if not holds:
        return None
    return now if before is None else before
