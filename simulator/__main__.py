"""`python -m simulator`: what `driver.py exchange` does, without the rest of the command line."""

import sys
from argparse import ArgumentParser

from relay.errors import ConfigError, UsageError
from simulator.arguments import add_arguments
from simulator.command import run


def main() -> int:
    parser = ArgumentParser(prog="python -m simulator", description="The simulated exchange, on loopback.")
    add_arguments(parser)
    try:
        return run(parser.parse_args())
    except (ConfigError, UsageError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
