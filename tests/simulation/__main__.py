"""`python -m tests.simulation SEED [pair|single|MUTANT]` plays one seed and prints what happened in it.

With `pair` the streams have two instances; with `single` one of these fails, once.
"""

from __future__ import annotations

import logging
import sys

from tests.simulation.faults import FAULTS, ONE_INSTANCE_FAULTS, PAIR_FAULTS
from tests.simulation.mutants import MUTANTS
from tests.simulation.scene import play

FAULTS_OF = {"": FAULTS, "pair": PAIR_FAULTS, "single": ONE_INSTANCE_FAULTS}


def main() -> None:
    if len(sys.argv) not in (2, 3) or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    logging.disable(logging.CRITICAL)
    word = sys.argv[2] if len(sys.argv) == 3 else ""
    mutants = {one.__name__: one for one in MUTANTS}
    mutant = None if word in FAULTS_OF else mutants[word]
    faults = FAULTS_OF.get(word, FAULTS)
    outcome = play(
        int(sys.argv[1]), mutant, faults, critical=word in ("pair", "single"), only_one=word == "single"
    )
    print(*outcome.trace, sep="\n")
    print(f"{outcome.events} events, {outcome.missing} missing, {outcome.virtual_s:.1f} s of virtual time")
    print(*outcome.problems or ("everything holds",), sep="\n")
    sys.exit(bool(outcome.problems))


if __name__ == "__main__":
    main()
