"""Whole relays in virtual time: 1,000 seeds of faults, and proof that each guard is missed when it is off.

`python -m tests.simulation SEED [pair|single]` plays one seed again and prints what happened in it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.simulation.faults import FAULTS, ONE_INSTANCE_FAULTS, PAIR_FAULTS
from tests.simulation.mutants import MUTANTS, STANDBY_MUTANTS, Mutant
from tests.simulation.scene import Outcome, play

SEEDS = range(1_000)
PARTS = 10
# How many of the parts every run plays; two instances take twice as long.
SHORT_PARTS, SHORT_PARTS_OF_PAIRS = 6, 2
ONE_FAULT_SEEDS = range(300)
# Several times what the mutant that is missed most rarely takes.
MUTANT_SEEDS = range(500)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The actors log every fault, at some length."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def parts(short: int) -> list[Any]:
    return [part if part < short else pytest.param(part, marks=pytest.mark.long) for part in range(PARTS)]


def report(outcome: Outcome) -> str:
    seed = outcome.seed
    first = f"seed {seed}, {outcome.missing} missing; again: python -m tests.simulation {seed}"
    return "\n".join((first, *outcome.problems, *outcome.trace))


@pytest.mark.parametrize("part", parts(SHORT_PARTS))
def test_everything_holds_whatever_fails(part: int) -> None:
    happened: set[str] = set()
    events = 0
    for seed in SEEDS[part::PARTS]:
        outcome = play(seed)
        assert not outcome.problems, report(outcome)
        events += outcome.events
        happened.update(line.split()[-1] for line in outcome.trace)
    assert events > 20 * len(SEEDS) / PARTS
    assert happened >= {fault.__name__ for fault in FAULTS}, "a fault that never happens proves nothing"


@pytest.mark.parametrize("part", parts(SHORT_PARTS_OF_PAIRS))
def test_everything_holds_of_two_instances_whatever_fails(part: int) -> None:
    happened: set[str] = set()
    for seed in SEEDS[part::PARTS]:
        outcome = play(seed, None, PAIR_FAULTS, critical=True)
        assert not outcome.problems, report(outcome)
        happened.update(line.split()[-1] for line in outcome.trace)
    assert happened >= {fault.__name__ for fault in PAIR_FAULTS}, "a fault that never happens proves nothing"


def test_what_fails_one_instance_costs_no_event() -> None:
    happened: set[str] = set()
    for seed in ONE_FAULT_SEEDS:
        outcome = play(seed, None, ONE_INSTANCE_FAULTS, critical=True, only_one=True)
        assert (outcome.missing, outcome.problems) == (0, ()), report(outcome)
        happened.update(line.split()[-1] for line in outcome.trace)
    assert happened >= {fault.__name__ for fault in ONE_INSTANCE_FAULTS}, (
        "a fault that never happens proves nothing"
    )


@pytest.mark.parametrize("mutant", STANDBY_MUTANTS, ids=lambda mutant: mutant.__name__)
def test_an_instance_that_forgets_or_sleeps_is_missed(mutant: Mutant) -> None:
    outcomes = (
        play(seed, mutant, ONE_INSTANCE_FAULTS, critical=True, only_one=True) for seed in ONE_FAULT_SEEDS
    )
    assert any(one.missing or one.problems for one in outcomes)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_guard_that_is_off_is_missed(mutant: Mutant) -> None:
    assert any(play(seed, mutant, MUTANTS[mutant]).problems for seed in MUTANT_SEEDS)


def test_a_seed_plays_the_same_every_time() -> None:
    assert play(7) == play(7)
