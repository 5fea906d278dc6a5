"""Rows of the fault table as tests: a row that did nothing fails, and all stand in one table at the end."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.rig import Rig
from tests.chaos.rows import LONG_VARIABLE, Outcome, Row, chosen_seed, table

TABLE_VARIABLE = "SLUICE_CHAOS_TABLE"
_outcomes = pytest.StashKey[list[Outcome]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("chaos")
        if marker is not None and marker.kwargs.get("ci"):
            item.add_marker(pytest.mark.chaos_ci)
        if marker is not None and os.environ.get(LONG_VARIABLE):
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """Of the test's own `chaos` marker."""
    marker = request.node.get_closest_marker("chaos")
    seed = chosen_seed()
    print(f"seed {seed}")
    yield Row(marker.kwargs["row"], marker.kwargs["fault"], marker.kwargs["figure"], seed)


@pytest.fixture
def rig(tmp_path: Path, row: Row) -> Iterator[Rig]:
    """Nothing runs before `rig.start`."""
    with Rig(tmp_path, row) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    result = yield
    made = pyfuncitem.funcargs.get("row")
    if isinstance(made, Row):
        made.require()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
    report = yield
    made = getattr(item, "funcargs", {}).get("row")
    if report.when == "call" and isinstance(made, Row):
        word = {"passed": "held", "failed": "BROKEN"}.get(report.outcome, report.outcome)
        done = item.config.stash.setdefault(_outcomes, [])
        done.append(Outcome(made, item.name, word, report.duration))
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    done = config.stash.get(_outcomes, [])
    if not done:
        return
    lines = table(done)
    terminalreporter.section("faults")
    for line in lines:
        terminalreporter.write_line(line)
    if where := os.environ.get(TABLE_VARIABLE):
        Path(where).write_text("\n".join(lines) + "\n", encoding="utf-8")
