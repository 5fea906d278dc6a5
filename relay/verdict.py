"""Sets what an exchange says that it sent against what a consumer found in NATS, and draws both. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from relay.audit import Audit, StreamAudit
from relay.layout import Cell, Column, Tone, count, fitted, header, millis, row, short
from relay.ranges import Range, RangeSet
from relay.table import MAX_WIDTH

_LEAST_NAME = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """On one stream. `conflated` events were left out by the stream's own overflow policy, and counted there.

    `sent` counts what went out on sockets, and what nobody listened to and REST gave all the same;
    `repaired` events are on the subject of repairs. `bytes_equal` is None where the two sets differ anyway,
    so that there is nothing to compare.
    """

    stream: str
    sent: int
    stored: int
    conflated: int
    duplicated: int
    out_of_order: int
    bytes_equal: bool | None
    p50_ms: float | None
    p99_ms: float | None
    healed: int = 0
    repaired: int = 0

    @property
    def lost(self) -> int:
        return max(0, self.sent - self.stored - self.repaired - self.conflated)

    @property
    def foreign(self) -> int:
        """Stored, though the exchange never sent that many."""
        return max(0, self.stored + self.repaired + self.conflated - self.sent)

    @property
    def good(self) -> bool:
        faults = self.lost or self.foreign or self.duplicated or self.out_of_order
        return not faults and self.bytes_equal is not False


@dataclass(frozen=True, slots=True)
class Sent:
    """What the exchange says of one stream; the digest is made as `relay.audit` makes it.

    `unseen` are ids of events that it made while nobody listened, which neither of the others covers.
    """

    events: int
    digest: str
    unseen: tuple[Range, ...] = ()


def judge(
    sent: Mapping[str, Sent], audits: Iterable[StreamAudit], conflated: Mapping[str, int]
) -> list[Verdict]:
    """One verdict for each stream that was sent or found, by key; a stream of which nothing came is lost."""
    found = {audit.stream: audit for audit in audits}
    return [
        _verdict(key, sent.get(key, Sent(0, "")), found.get(key), conflated.get(key, 0))
        for key in sorted(sent.keys() | found.keys())
    ]


def _verdict(key: str, sent: Sent, audit: StreamAudit | None, conflated: int) -> Verdict:
    stored = audit.stored if audit else 0
    repaired = audit.repaired if audit else 0
    unseen = len(RangeSet(audit.mended).common(RangeSet(sent.unseen))) if audit else 0
    comparable = not unseen and not repaired and stored == sent.events
    return Verdict(
        stream=key,
        sent=sent.events + unseen,
        stored=stored,
        conflated=conflated,
        duplicated=audit.duplicated if audit else 0,
        out_of_order=audit.out_of_order if audit else 0,
        bytes_equal=audit.digest == sent.digest if audit and comparable else None,
        p50_ms=audit.p50_ms if audit else None,
        p99_ms=audit.p99_ms if audit else None,
        healed=audit.healed if audit else 0,
        repaired=repaired,
    )


def total_line(verdicts: Sequence[Verdict], audit: Audit, *, good: bool) -> str:
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
        "never sent": sum(v.foreign for v in verdicts),
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


def verdict_table(verdicts: Sequence[Verdict], *, width: int = MAX_WIDTH, colour: bool = False) -> list[str]:
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


def _verdict_cells(name: str, verdict: Verdict, *, conflating: bool) -> list[Cell]:
    equal = {True: "equal", False: "DIFFER", None: "-"}[verdict.bytes_equal]
    return [
        Cell(name),
        Cell(count(verdict.sent)),
        Cell(count(verdict.stored), Tone.BAD if verdict.foreign else Tone.PLAIN),
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
