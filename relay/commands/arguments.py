"""The types of command-line arguments; each refuses with one sentence, which argparse prints."""

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


def publisher_count(text: str) -> int | None:
    """None stands for `auto`."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is neither a number from 1 on nor auto")
    return int(text)
