"""Types of command-line arguments, and what a shell offers for one of them.

Each type rejects invalid text with one sentence, which argparse prints.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime

from relay.errors import ConfigError

# For a publisher count: the one word that it may be.
AUTO = {
    "bash": "_sluice_auto",
    "zsh": "(auto)",
    "preamble": {"bash": '_sluice_auto() { compgen -W auto -- "$1"; }'},
}


def moment(text: str) -> Callable[[int], int]:
    """A UTC time or a duration before now, as a function from the present Unix time in ns to the one
    meant.
    """
    from relay.config.values import parse_duration

    try:
        duration_s = parse_duration(text)
    except ConfigError:
        return _at(text)
    return lambda now_ns: now_ns - int(duration_s * 1e9)


def _at(text: str) -> Callable[[int], int]:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        problem = f"{text!r} is neither a duration such as 30m nor a time such as 2026-01-31T12:00:00Z"
        raise ArgumentTypeError(problem) from None
    at_ns = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e9)
    return lambda now_ns: at_ns


def publisher_count(text: str) -> int | None:
    """None stands for `auto`."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is neither a number from 1 on nor auto")
    return int(text)
