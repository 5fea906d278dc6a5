"""Text for terminals: numbers in few characters, bars, columns. Pure; the caller says width and colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

_FULL, _EMPTY = "█", "░"
_RESET = "\x1b[0m"


class Tone(StrEnum):
    """What a cell means; the value is its ANSI colour."""

    PLAIN = ""
    GOOD = "\x1b[32m"
    WARN = "\x1b[33m"
    BAD = "\x1b[1;31m"
    DIM = "\x1b[2m"
    STRONG = "\x1b[1m"


@dataclass(frozen=True, slots=True)
class Column:
    """`width` 0 takes what the others leave; numbers stand right, words left."""

    title: str
    width: int
    right: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    tone: Tone = Tone.PLAIN


def fitted(columns: Sequence[Column], width: int, least: int) -> list[Column]:
    """The columns with the one of width 0 given the rest of `width`, but not under `least`."""
    taken = sum(column.width for column in columns) + len(columns) - 1
    rest = max(least, width - taken)
    return [Column(c.title, c.width or rest, c.right) for c in columns]


def header(columns: Sequence[Column], *, colour: bool) -> str:
    return row(columns, [Cell(column.title, Tone.DIM) for column in columns], colour=colour)


def row(columns: Sequence[Column], cells: Sequence[Cell], *, colour: bool) -> str:
    return " ".join(_cell(c, cell, colour=colour) for c, cell in zip(columns, cells, strict=True)).rstrip()


def paint(text: str, tone: Tone, *, colour: bool) -> str:
    return f"{tone}{text}{_RESET}" if colour and tone else text


def clip(text: str, width: int) -> str:
    """One printable line of at most `width` characters: what other machines sent may hold control codes."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= width else clean[: max(0, width - 1)] + "…"


def bar(share: float, width: int) -> str:
    """Anything above nothing shows at least one block."""
    share = min(1.0, max(0.0, share))
    full = round(share * width) or int(share > 0)
    return _FULL * full + _EMPTY * (width - full)


def short(keys: Sequence[str]) -> list[str]:
    """Streams' keys without the venue, where all are of one."""
    venues = {key.partition(":")[0] for key in keys}
    return [key if len(venues) > 1 else key.partition(":")[2] for key in keys]


def count(value: int) -> str:
    """At most seven characters up to a million million."""
    if abs(value) < 1_000_000:
        return f"{value:,}"
    return f"{value / 1e6:.2f}M" if abs(value) < 1_000_000_000 else f"{value / 1e9:.2f}G"


def rate(value: float) -> str:
    return f"{value:.1f}" if value < 10 else count(round(value))


def millis(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def age(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _cell(column: Column, cell: Cell, *, colour: bool) -> str:
    text = clip(cell.text, column.width)
    padded = text.rjust(column.width) if column.right else text.ljust(column.width)
    return paint(padded, cell.tone, colour=colour)
