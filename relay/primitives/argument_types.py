"""What the arguments of more than one command line have in common: types, each of which refuses in one
sentence, and how a shell completes a value."""

from __future__ import annotations

from argparse import Action, ArgumentTypeError
from collections.abc import Mapping
from math import isfinite

# bash offers files by itself wherever nothing is known.
FILES = {"zsh": "_files"}


def completed_by(action: Action, completions: Mapping[str, object]) -> None:
    """`completions` as shtab defines them, by shell. Nothing but `completion` reads them or imports shtab."""
    action.complete = completions  # type: ignore[attr-defined]


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
