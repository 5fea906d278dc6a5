"""Whole relays in virtual time: 1,000 seeds of faults, and proof that each guard is missed when it is off.

`python -m tests.simulation SEED` plays one seed again and tells what happened in it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.faults import FAULTS
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.scene import Outcome, play

SEEDS = range(1_000)
PARTS = 10
# Several times what the mutant that is missed most rarely takes.
MUTANT_SEEDS = range(500)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The actors log every fault, at some length."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def report(outcome: Outcome) -> str:
    replay = f"seed {outcome.seed}; again: python -m tests.simulation {outcome.seed}"
    return "\n".join((replay, *outcome.problems, *outcome.trace))


@pytest.mark.parametrize("part", range(PARTS))
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


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_guard_that_is_off_is_missed(mutant: Mutant) -> None:
    assert any(play(seed, mutant, MUTANTS[mutant]).problems for seed in MUTANT_SEEDS)


def test_a_seed_plays_the_same_every_time() -> None:
    assert play(7) == play(7)
