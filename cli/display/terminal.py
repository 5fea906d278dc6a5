"""Text for terminals: columns, bars and colours. Pure; the caller gives width and colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from relay.primitives.text import clip

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
    """`width` 0 takes what the others leave; `right` aligns numbers to the right."""

    title: str
    width: int
    right: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    tone: Tone = Tone.PLAIN


def fit_columns(columns: Sequence[Column], width: int, least: int) -> list[Column]:
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


def bar(share: float, width: int) -> str:
    """`width` blocks, of which `share` are full: at least one for any share above 0."""
    share = min(1.0, max(0.0, share))
    full = round(share * width) or int(share > 0)
    return _FULL * full + _EMPTY * (width - full)


def short(keys: Sequence[str]) -> list[str]:
    """Streams' keys, without the venue if all are of the same one."""
    venues = {key.partition(":")[0] for key in keys}
    return [key if len(venues) > 1 else key.partition(":")[2] for key in keys]


def _cell(column: Column, cell: Cell, *, colour: bool) -> str:
    text = clip(cell.text, column.width)
    padded = text.rjust(column.width) if column.right else text.ljust(column.width)
    return paint(padded, cell.tone, colour=colour)
