"""One row of the fault table: what was done to the relay, what was measured, and what came of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from random import Random, SystemRandom

SEED_VARIABLE = "SLUICE_CHAOS_SEED"
LONG_VARIABLE = "SLUICE_CHAOS_LONG"


class NothingHappenedError(AssertionError):
    """A test that injected no fault, or judged nothing, proves nothing."""


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    unit: str
    limit: float | None

    def __str__(self) -> str:
        bound = "" if self.limit is None else f" (limit {self.limit:g}{'' if self.met else ', missed'})"
        value = f"{self.value:,.0f}" if self.value == int(self.value) else f"{self.value:,.3g}"
        return f"{self.name} {value} {self.unit}".rstrip() + bound

    @property
    def met(self) -> bool:
        return self.limit is None or self.value <= self.limit


@dataclass
class Row:
    """`number` is that of the fault table, `fault` and `figure` its words. Timings are figures: they are
    shown beside their limit and fail nothing."""

    number: int
    fault: str
    figure: str
    seed: int
    injections: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    judged: bool = False

    @property
    def random(self) -> Random:
        return Random(self.seed)

    @property
    def long(self) -> bool:
        """Nightly: faults last as long as the table says."""
        return bool(os.environ.get(LONG_VARIABLE))

    def injected(self, what: str, evidence: object) -> None:
        """Say that a fault took effect; `evidence` is what shows it, and must be true."""
        if not evidence:
            raise NothingHappenedError(f"row {self.number}: {what} had no effect")
        self.injections.append(what)

    def measured(self, name: str, value: float | None, unit: str, limit: float | None = None) -> None:
        if value is not None:
            self.figures.append(Figure(name, value, unit, limit))

    def require(self) -> None:
        if not self.injections:
            raise NothingHappenedError(f"row {self.number} injected nothing")
        if not self.judged:
            raise NothingHappenedError(f"row {self.number} checked no invariant")

    @property
    def shown(self) -> str:
        return ", ".join(map(str, self.figures)) or "-"


def chosen_seed() -> int:
    given = os.environ.get(SEED_VARIABLE)
    return int(given) if given else SystemRandom().randrange(1, 1 << 31)


@dataclass(frozen=True)
class Outcome:
    row: Row
    test: str
    result: str
    seconds: float


def table(outcomes: list[Outcome]) -> list[str]:
    """Markdown, a line for each test, in the order of the rows."""
    lines = ["| row | fault | wanted | measured | result |", "|---|---|---|---|---|"]
    for one in sorted(outcomes, key=lambda one: (one.row.number, one.test)):
        row = one.row
        result = f"{one.result}, {one.seconds:.0f} s, seed {row.seed}"
        lines.append(f"| {row.number} | {row.fault} | {row.figure} | {row.shown} | {result} |")
    return lines
