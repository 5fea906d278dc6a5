"""Whole relays in virtual time: 1,000 seeds of faults, and proof that each guard is missed when it is off.

`python -m tests.simulation SEED` plays one seed again and tells what happened in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.simulation.faults import FAULTS
from tests.simulation.mutants import MUTANTS
from tests.simulation.scene import Outcome, Scene, play

SEEDS = range(1_000)
PARTS = 10
# Enough for every mutant; one that is rarely missed names the seed that misses it.
MUTANT_SEEDS = range(400)
KNOWN_RED: dict[str, int] = {}


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
    for seed in SEEDS[part::PARTS]:
        outcome = play(seed)
        assert not outcome.problems, report(outcome)
        assert outcome.events > 5
        happened.update(line.split()[-1] for line in outcome.trace)
    assert happened >= {fault.__name__ for fault in FAULTS}, "a fault that never happens proves nothing"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_guard_that_is_off_is_missed(mutant: Callable[[Scene], AbstractContextManager[object]]) -> None:
    first = KNOWN_RED.get(mutant.__name__)
    seeds = MUTANT_SEEDS if first is None else (first, *MUTANT_SEEDS)
    assert any(play(seed, mutant).problems for seed in seeds)


def test_a_seed_plays_the_same_every_time() -> None:
    assert play(7) == play(7)
