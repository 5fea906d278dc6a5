"""`completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import sys
from argparse import Namespace

from cli.completion import script


def run(args: Namespace) -> int:
    sys.stdout.write(script(args.parser, args.shell))
    return 0
