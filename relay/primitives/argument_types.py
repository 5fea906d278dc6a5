"""Types of command-line arguments that more than one command line takes; each refuses in one sentence."""

from __future__ import annotations

from argparse import ArgumentTypeError
from math import isfinite


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number") from None
    if not (isfinite(value) and value > 0):
        raise ArgumentTypeError(f"{text} is not above 0")
    return value


def port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is no port; take 0 to 65535")
    return int(text)
