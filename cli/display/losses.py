"""The loss ledger as a table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cli.display.status import MAX_WIDTH
from cli.display.terminal import Cell, Column, Tone, fit_columns, header, row, short
from relay.losses.report import LossRecord, LossReport, LossState
from relay.primitives.text import age, count, utc

_MIN_NAME_WIDTH = 14


def loss_table(report: LossReport, *, width: int = MAX_WIDTH, colour: bool = False) -> list[str]:
    columns = [
        Column("stream", 0, right=False),
        Column("first id", 13),
        Column("last id", 13),
        Column("events", 8),
        Column("state", 8, right=False),
        Column("cause", 10, right=False),
        Column("from", 19, right=False),
        Column("for", 7),
    ]
    fit = fit_columns(columns, width, _MIN_NAME_WIDTH)
    names = short([record.entry.stream for record in report.records])
    lines = [header(fit, colour=colour)]
    lines += [
        row(fit, _cells(name, record), colour=colour)
        for name, record in zip(names, report.records, strict=True)
    ]
    return lines


def _cells(name: str, record: LossRecord) -> Sequence[Cell]:
    entry = record.entry
    tone = Tone.BAD if record.state in (LossState.OPEN, LossState.PARTLY) else Tone.GOOD
    return [
        Cell(name),
        Cell("-" if entry.first_id is None else str(entry.first_id)),
        Cell("-" if entry.last_id is None else str(entry.last_id)),
        Cell("?" if entry.count is None else count(entry.count)),
        Cell(record.state, tone),
        Cell(entry.cause),
        Cell(utc(entry.from_ns)[:19].replace("T", " ")),
        Cell(age(max(0.0, (entry.to_ns - entry.from_ns) / 1e9))),
    ]


def total_sentence(report: LossReport) -> str:
    """The totals of the ledger in one sentence."""
    parts = [f"{report.open:,} {_events(report.open)} lost and not healed"]
    if report.suspect:
        parts.append(f"{report.suspect:,} of them unconfirmed")
    if report.uncounted:
        parts.append(f"{_gaps(report.uncounted)} whose events cannot be counted")
    parts.append(f"{report.healed:,} healed in their place")
    parts.append(f"{report.repaired:,} repaired later")
    return f"{_gaps(len(report.records))}: {', '.join(parts)}"


def _gaps(number: int) -> str:
    return f"{number:,} gap{'' if number == 1 else 's'}"


def _events(number: int) -> str:
    return "event" if number == 1 else "events"
