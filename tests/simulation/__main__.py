"""`python -m tests.simulation SEED [MUTANT]` plays one seed and tells what happened in it."""

from __future__ import annotations

import logging
import sys

from tests.simulation.mutants import MUTANTS
from tests.simulation.scene import play


def main() -> None:
    if len(sys.argv) not in (2, 3) or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    logging.disable(logging.CRITICAL)
    mutant = {one.__name__: one for one in MUTANTS}[sys.argv[2]] if len(sys.argv) == 3 else None
    outcome = play(int(sys.argv[1]), mutant)
    print(*outcome.trace, sep="\n")
    print(f"{outcome.events} events, {outcome.virtual_s:.1f} s of virtual time")
    print(*outcome.problems or ("everything holds",), sep="\n")
    sys.exit(bool(outcome.problems))


if __name__ == "__main__":
    main()
