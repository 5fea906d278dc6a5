"""Audits and comparisons as tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cli.display.status import MAX_WIDTH
from cli.display.terminal import Cell, Column, Tone, fitted, header, row, short
from relay.audit.audit import Audit
from relay.audit.comparison import StreamComparison
from relay.audit.stream_audit import StreamAudit
from relay.primitives.text import count, millis

_LEAST_NAME = 14


def total_line(verdicts: Sequence[StreamComparison], audit: Audit, *, good: bool) -> str:
    """The whole result in one sentence."""
    sums = {
        "sent": sum(v.sent for v in verdicts),
        "stored": sum(v.stored for v in verdicts),
        "conflated": sum(v.conflated for v in verdicts),
        "healed": sum(v.healed for v in verdicts),
        "repaired": sum(v.repaired for v in verdicts),
        "lost": sum(v.lost for v in verdicts),
        "duplicated": sum(v.duplicated for v in verdicts),
        "out of order": sum(v.out_of_order for v in verdicts),
        "never sent": sum(v.unexpected for v in verdicts),
        "malformed": audit.malformed,
    }
    always = ("sent", "stored", "lost", "duplicated", "out of order")
    parts = [f"{value:,} {name}" for name, value in sums.items() if value or name in always]
    differ = sum(v.bytes_equal is False for v in verdicts)
    parts.append(f"bytes differ on {differ} streams" if differ else "bytes equal")
    return f"{'PASSED' if good else 'FAILED'}: {', '.join(parts)}, {latency_text(audit)}"


def latency_text(audit: Audit) -> str:
    """Of all streams together, from the relay's socket to the consumer."""
    latency = audit.latency()
    p50, p99 = ((ns / 1e6 if ns else None) for ns in (latency.quantile(0.5), latency.quantile(0.99)))
    return f"p50 {millis(p50)} ms, p99 {millis(p99)} ms"


def verdict_table(
    verdicts: Sequence[StreamComparison], *, width: int = MAX_WIDTH, colour: bool = False
) -> list[str]:
    conflating = any(verdict.conflated for verdict in verdicts)
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
    names = short([verdict.stream for verdict in verdicts])
    cells = [
        _verdict_cells(name, verdict, conflating=conflating)
        for name, verdict in zip(names, verdicts, strict=True)
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
    fit = fitted(columns, min(width, MAX_WIDTH), _LEAST_NAME)
    return [header(fit, colour=colour), *(row(fit, cells, colour=colour) for cells in rows)]


def _verdict_cells(name: str, verdict: StreamComparison, *, conflating: bool) -> list[Cell]:
    equal = {True: "equal", False: "DIFFER", None: "-"}[verdict.bytes_equal]
    return [
        Cell(name),
        Cell(count(verdict.sent)),
        Cell(count(verdict.stored), Tone.BAD if verdict.unexpected else Tone.PLAIN),
        *([Cell(count(verdict.conflated))] if conflating else []),
        _fault(verdict.lost),
        _fault(verdict.duplicated),
        _fault(verdict.out_of_order),
        Cell(equal, Tone.BAD if verdict.bytes_equal is False else Tone.PLAIN),
        Cell(millis(verdict.p50_ms)),
        Cell(millis(verdict.p99_ms)),
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
