"""The table of faults is whole: every row of it has one test of its name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

HERE = Path(__file__).parent
DELIVERY = ROOT / "docs" / "delivery.md"
RESEARCH = ROOT.parent / "shared" / "research" / "reliability.md"
ROWS = set(range(1, 44))
# `test_row_12_nats_down` is the test of row 12, `test_row_12b_...` shows more of it; a guard that is switched
# off has to break its row.
NAMED = re.compile(r"test_row_(?P<row>\d+)(?P<more>[b-z]?)_\w+")
GUARD = re.compile(r"test_guard_\w+")


def chaos_tests() -> Iterator[tuple[str, int]]:
    """Name and row of each test with the `chaos` marker."""
    for path in sorted(HERE.glob("test_*.py")):
        for name, test in vars(import_module(f"tests.chaos.{path.stem}")).items():
            marks: list[Any] = getattr(test, "pytestmark", []) if name.startswith("test_") else []
            for mark in marks:
                if mark.name == "chaos":
                    yield name, mark.kwargs["row"]


def test_every_row_has_one_test_of_its_name() -> None:
    named = [found for name, _ in chaos_tests() if (found := NAMED.fullmatch(name))]
    counted = Counter(int(found["row"]) for found in named if not found["more"])
    assert set(counted) == ROWS
    twice = [f"test_row_{row}_" for row, count in counted.items() if count > 1]
    assert not twice, f"{twice}: name the further ones with a letter, as test_row_12b_"


def test_every_test_of_a_fault_is_named_by_the_row_that_it_is_marked_with() -> None:
    for name, row in chaos_tests():
        found = NAMED.fullmatch(name)
        agrees = found is not None and int(found["row"]) == row
        assert agrees or GUARD.fullmatch(name), f"{name} is marked with row {row}"


def rows_in(path: Path, heading: str) -> list[int]:
    section = path.read_text(encoding="utf-8").partition(heading)[2].partition("\n## ")[0]
    return [int(number) for number in re.findall(r"(?m)^\| (\d+) \|", section)]


def test_what_became_of_every_row_is_written_down() -> None:
    assert rows_in(DELIVERY, "## What was tried") == sorted(ROWS)


def test_the_rows_are_those_that_were_planned() -> None:
    if not RESEARCH.exists():
        pytest.skip("the table of faults that was planned is not on this machine")
    assert rows_in(RESEARCH, "## 4. ") == sorted(ROWS)
