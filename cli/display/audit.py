"""Audits and comparisons as tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cli.display.status import MAX_WIDTH
from cli.display.terminal import Cell, Column, Tone, fit_columns, header, row, short
from relay.audit.audit import Audit
from relay.audit.comparison import StreamComparison
from relay.audit.stream_audit import StreamAudit
from relay.primitives.text import count, millis

_MIN_NAME_WIDTH = 14


def total_line(comparisons: Sequence[StreamComparison], audit: Audit, *, passed: bool) -> str:
    """The result in one sentence."""
    sums = {
        "sent": sum(one.sent for one in comparisons),
        "stored": sum(one.stored for one in comparisons),
        "conflated": sum(one.conflated for one in comparisons),
        "healed": sum(one.healed for one in comparisons),
        "repaired": sum(one.repaired for one in comparisons),
        "lost": sum(one.lost for one in comparisons),
        "duplicated": sum(one.duplicated for one in comparisons),
        "out of order": sum(one.out_of_order for one in comparisons),
        "never sent": sum(one.unexpected for one in comparisons),
        "malformed": audit.malformed,
    }
    always = ("sent", "stored", "lost", "duplicated", "out of order")
    parts = [f"{value:,} {name}" for name, value in sums.items() if value or name in always]
    differ = sum(one.bytes_equal is False for one in comparisons)
    parts.append(f"bytes differ on {differ} streams" if differ else "bytes equal")
    return f"{'PASSED' if passed else 'FAILED'}: {', '.join(parts)}, {latency_text(audit)}"


def latency_text(audit: Audit) -> str:
    """Latency over all streams, from the relay's socket to the consumer."""
    latency = audit.latency()
    p50, p99 = ((ns / 1e6 if ns else None) for ns in (latency.quantile(0.5), latency.quantile(0.99)))
    return f"p50 {millis(p50)} ms, p99 {millis(p99)} ms"


def comparison_table(
    comparisons: Sequence[StreamComparison], *, width: int = MAX_WIDTH, colour: bool = False
) -> list[str]:
    conflating = any(comparison.conflated for comparison in comparisons)
    columns = [
        Column("stream", 0, right=False),
        Column("sent", 8),
        Column("stored", 8),
        *([Column("confl.", 6)] if conflating else []),
        Column("lost", 6),
        Column("dupl.", 5),
        Column("order", 5),
        Column("bytes", 6),
        Column("p50 ms", 6),
        Column("p99 ms", 6),
    ]
    names = short([comparison.stream for comparison in comparisons])
    cells = [
        _comparison_cells(name, comparison, conflating=conflating)
        for name, comparison in zip(names, comparisons, strict=True)
    ]
    return _table(columns, cells, width, colour=colour)


def audit_table(audits: Sequence[StreamAudit], *, width: int = MAX_WIDTH, colour: bool = False) -> list[str]:
    columns = [
        Column("stream", 0, right=False),
        Column("stored", 8),
        Column("lost", 6),
        Column("skip.", 5),
        Column("dupl.", 5),
        Column("order", 5),
        Column("p50 ms", 6),
        Column("p99 ms", 6),
        Column("max ms", 6),
    ]
    names = short([audit.stream for audit in audits])
    cells = [_audit_cells(name, audit) for name, audit in zip(names, audits, strict=True)]
    return _table(columns, cells, width, colour=colour)


def _table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int, *, colour: bool
) -> list[str]:
    fit = fit_columns(columns, min(width, MAX_WIDTH), _MIN_NAME_WIDTH)
    return [header(fit, colour=colour), *(row(fit, cells, colour=colour) for cells in rows)]


def _comparison_cells(name: str, comparison: StreamComparison, *, conflating: bool) -> list[Cell]:
    equal = {True: "equal", False: "DIFFER", None: "-"}[comparison.bytes_equal]
    return [
        Cell(name),
        Cell(count(comparison.sent)),
        Cell(count(comparison.stored), Tone.BAD if comparison.unexpected else Tone.PLAIN),
        *([Cell(count(comparison.conflated))] if conflating else []),
        _fault(comparison.lost),
        _fault(comparison.duplicated),
        _fault(comparison.out_of_order),
        Cell(equal, Tone.BAD if comparison.bytes_equal is False else Tone.PLAIN),
        Cell(millis(comparison.p50_ms)),
        Cell(millis(comparison.p99_ms)),
    ]


def _audit_cells(name: str, audit: StreamAudit) -> list[Cell]:
    return [
        Cell(name),
        Cell(count(audit.stored)),
        _fault(audit.lost),
        Cell(count(audit.skipped)),
        _fault(audit.duplicated),
        _fault(audit.out_of_order),
        Cell(millis(audit.p50_ms)),
        Cell(millis(audit.p99_ms)),
        Cell(millis(audit.max_ms)),
    ]


def _fault(value: int) -> Cell:
    return Cell(count(value), Tone.BAD if value else Tone.PLAIN)
