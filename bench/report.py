"""The terminal's table, the JSON file and the machine's name. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.loads import CALM_STREAMS, STREAMS, Load, Plan
from bench.measurement import Measurement, middle, middle_quantiles
from bench.tally import QUANTILES

_HEADINGS = (
    "load", "system", "msg/s", "sent", "lost", "late", "dup", "order",
    "p50 ms", "p99 ms", "p99.9 ms", "CPU us/msg", "memory MB",
)  # fmt: skip
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Machine:
    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    nats_server: str

    def __str__(self) -> str:
        return f"{self.cores} cores of {self.cpu}, {self.memory_bytes / 2**30:.0f} GiB, {self.system}"

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.cores} cores {self.cpu}".lower()).strip("-")


@dataclass(frozen=True, slots=True)
class RampResult:
    """The ramp of one system: each step, and the highest rate that held for the full time."""

    system: str
    steps: tuple[Measurement, ...]
    held: Measurement | None


@dataclass(frozen=True, slots=True)
class Results:
    """`starts_s` is the time from the start until every stream had delivered, per system and round."""

    machine: Machine
    plan: Plan
    systems: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    ramps: tuple[RampResult, ...]
    starts_s: dict[str, list[float]]

    def of(self, system: str, load: str) -> list[Measurement]:
        return [each for each in self.measurements if each.system == system and each.load == load]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: counts of all rounds together, medians over the rounds of everything else."""

    load: str
    system: str
    sent_per_s: float
    sent: int
    lost: int
    late: int
    duplicates: int
    out_of_order: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_us: float
    pss_mb: float


def rows(results: Results) -> list[Row]:
    """In the order of the loads; a flood's counts and latency are those of the calm streams."""
    found = []
    for load in (*results.plan.loads, results.plan.flood):
        for system in results.systems:
            measured = results.of(system, load.name)
            if measured:
                found.append(_row(load, system, measured))
    return found


def _row(load: Load, system: str, measured: Sequence[Measurement]) -> Row:
    group, streams = next(iter(load.groups.items()))
    values = middle_quantiles(measured, group)
    at = {q: values[index] if values else float("nan") for index, q in enumerate(QUANTILES)}
    counted = [each.streams[name] for each in measured for name in streams]
    return Row(
        load=f"{load.name}, {group}" if streams != STREAMS else load.name,
        system=system,
        sent_per_s=middle([each.sent_per_s for each in measured]),
        sent=sum(counts.sent for counts in counted),
        lost=sum(each.lost(streams) for each in measured),
        late=sum(each.late(streams) for each in measured),
        duplicates=sum(counts.duplicates for counts in counted),
        out_of_order=sum(counts.out_of_order for counts in counted),
        p50_ms=at[0.5],
        p99_ms=at[0.99],
        p999_ms=at[0.999],
        cpu_us=middle([each.cpu_us_per_message for each in measured]),
        pss_mb=middle([each.pss_bytes / _MB for each in measured]),
    )


def table(results: Results) -> str:
    """Everything that the terminal shows."""
    lines = [_HEADINGS, *(_cells(row) for row in rows(results))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    text = [_aligned(line, widths) for line in lines]
    text.insert(1, "-" * len(text[0]))
    return "\n".join([str(results.machine), "", *text, "", *_ending(results)])


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return "  ".join(left + right)


def _cells(row: Row) -> tuple[str, ...]:
    counts = (row.sent, row.lost, row.late, row.duplicates, row.out_of_order)
    times = (row.p50_ms, row.p99_ms, row.p999_ms)
    return (
        row.load,
        row.system,
        f"{row.sent_per_s:,.0f}",
        *(f"{count:,}" for count in counts),
        *(f"{value:.2f}" for value in times),
        f"{row.cpu_us:.1f}",
        f"{row.pss_mb:.0f}",
    )


def _ending(results: Results) -> list[str]:
    return [*_ramp_lines(results), *_stored_lines(results), *_start_lines(results)]


def _stored_lines(results: Results) -> list[str]:
    """Only for loads whose messages were all waited for: a flood's backlog may still be on its way."""
    awaited = [load.name for load in results.plan.loads]
    kept = [each for each in results.measurements if each.stored is not None and each.load in awaited]
    if not kept:
        return []
    stored, sent = sum(each.stored or 0 for each in kept), sum(each.sent for each in kept)
    return [f"stored by JetStream: {stored:,} of the {sent:,} sent in {' and '.join(awaited)}"]


def _ramp_lines(results: Results) -> list[str]:
    hold_s = results.plan.ramp_hold_s
    return [f"highest rate held for {hold_s:g} s, nothing lost and the backlog gone 2 s later:"] + [
        f"  {ramp.system:<20}{_held(ramp)}" for ramp in results.ramps
    ]


def _held(ramp: RampResult) -> str:
    if ramp.held is None:
        return "none of the rates offered"
    held = ramp.held
    return f"{held.offered_per_s:>8,.0f} msg/s at {held.cpu_us_per_message:.1f} us of CPU a message"


def _start_lines(results: Results) -> list[str]:
    return ["from the start until every stream had delivered:"] + [
        f"  {system:<20}{middle(times):>8.1f} s" for system, times in results.starts_s.items()
    ]


def as_json(results: Results) -> dict[str, Any]:
    """All results, so that plots and tables can be made again."""
    return {
        "machine": asdict(results.machine),
        "rounds": len(next(iter(results.starts_s.values()), [])),
        "quantiles": list(QUANTILES),
        "table": [asdict(row) for row in rows(results)],
        "starts_s": results.starts_s,
        "measurements": [_measurement(each) for each in results.measurements],
        "ramp": [
            {
                "system": ramp.system,
                "held": _measurement(ramp.held) if ramp.held else None,
                "steps": [_measurement(step) for step in ramp.steps],
            }
            for ramp in results.ramps
        ],
    }


def _measurement(of: Measurement) -> dict[str, Any]:
    """Its fields, and the figures that follow from them."""
    return asdict(of) | {
        "sent": of.sent,
        "unique": of.unique,
        "lost_calm": of.lost(name for name in CALM_STREAMS if name in of.streams),
        "cpu_us_per_message": of.cpu_us_per_message,
        "rss_bytes": of.rss_bytes,
        "pss_bytes": of.pss_bytes,
    }
