"""`python -m tests.fuzz TARGET [--seconds N] [--corpus FOLDER]` runs one target under atheris.

Atheris is no requirement of the project, since it has wheels for Linux alone: `pip install atheris` first.
What it finds goes to FOLDER; what crashes is written to the working folder and named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SEEDS = Path(__file__).parent / "corpus"
MAX_INPUT_BYTES = 4096


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, default=None)
    options = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: .venv/bin/python -m pip install atheris")
    with atheris.instrument_imports(include=["relay"]):
        from tests.fuzz.targets import TARGETS
    if options.target not in TARGETS:
        sys.exit(f"there is no target {options.target}; choose one of {', '.join(TARGETS)}")
    folders = [str(SEEDS / options.target)]
    if options.corpus is not None:
        options.corpus.mkdir(parents=True, exist_ok=True)
        folders.insert(0, str(options.corpus))
    limits = [f"-max_total_time={options.seconds}", f"-max_len={MAX_INPUT_BYTES}", "-print_final_stats=1"]
    # libFuzzer writes to the first folder, which must not be the committed one.
    atheris.Setup([sys.argv[0], *limits, *folders], TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
