"""Everything at once: `make soak`, for half an hour; `make soak MINUTES=3 SEED=7` plays a short one again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.chaos.clock import WallClock
from tests.chaos.rig import STREAMS, Rig
from tests.chaos.rows import Row
from tests.chaos.schedule import AT_ONCE, KINDS, plan
from tests.chaos.soak import Soak, effects

MINUTES_VARIABLE = "SLUICE_SOAK_MINUTES"
MINUTES = float(os.environ.get(MINUTES_VARIABLE) or 30)
STEADY_WITHIN_S = 60.0


@pytest.mark.soak
@pytest.mark.timeout(120 * MINUTES + 600)
@pytest.mark.chaos(row=43, fault="everything at once", figure="steady within 60 s of the last fault")
def test_row_43_everything_at_once(rig: Rig, row: Row) -> None:
    schedule = plan(row.seed, 60.0 * MINUTES, STREAMS)
    print(*schedule, sep="\n")
    soak = Soak(rig, schedule)
    soak.start()
    soak.play()
    done = list(effects(soak.played))
    print("injected:", *done, sep="\n  ")
    row.injected("; ".join(done), len(soak.played) > 0.7 * len(schedule))
    # Twice as long as it may take, so that it is seen how long it took.
    row.measured("steady after", soak.calm_down(2 * STEADY_WITHIN_S), "s", STEADY_WITHIN_S)
    rig.flows(50)
    findings = soak.findings()
    assert not findings.violations, "\n".join(findings.violations)
    row.measured("faults", len(soak.played), "")
    row.measured("kinds", len(done), "")
    row.measured("for", MINUTES, "min")
    row.measured("events", findings.wired, "")
    row.measured("missing and announced", findings.missing, "")


def test_a_clock_that_was_set_tells_when_it_showed_a_time(tmp_path: Path) -> None:
    clock = WallClock(tmp_path / "clock")
    before_ns, before = time.time_ns(), time.monotonic()
    clock.step(3600.0)
    after_ns, after = time.time_ns() + 3_600_000_000_000, time.monotonic()
    assert clock.when(before_ns) == pytest.approx(before, abs=0.05)
    assert clock.when(after_ns) == pytest.approx(after, abs=0.05)
    assert clock.when(before_ns + 1_800_000_000_000) == pytest.approx(before, abs=0.05)


def test_a_schedule_is_a_function_of_its_seed() -> None:
    assert plan(7, 600.0, STREAMS) == plan(7, 600.0, STREAMS)
    assert plan(7, 600.0, STREAMS) != plan(8, 600.0, STREAMS)


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_has_every_kind_and_leaves_each_part_a_respite(seed: int) -> None:
    schedule = plan(seed, 1800.0, STREAMS)
    assert {one.kind for one in schedule} == set(KINDS)
    assert all(one.end_s <= 1800.0 for one in schedule)
    for at, one in enumerate(schedule):
        under_way = [other for other in schedule[:at] if other.end_s > one.at_s]
        assert len(under_way) < AT_ONCE
        assert (one.kind.part or one.target) not in {other.kind.part or other.target for other in under_way}
