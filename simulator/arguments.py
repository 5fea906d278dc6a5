"""The arguments of the simulated exchange. Apart from `command`, whose imports take long: every run of
driver.py reads them.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from relay.binance.grammar import Venue
from relay.primitives.argument_types import FILES, completed_by, port, positive


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--port", type=port, default=9001, metavar="P", help="0 takes a free one (9001)")
    parser.add_argument("--venue", choices=[venue.value for venue in Venue], default="usdm", help="(usdm)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="same seed, same events (1)")
    parser.add_argument(
        "--rate-scale", type=positive, default=1.0, metavar="X", help="multiply the traffic by X"
    )
    replay = parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="send a recording, not made-up events"
    )
    completed_by(replay, FILES)
    parser.add_argument("--speed", type=positive, default=1.0, metavar="X", help="speed of the recording (1)")
    parser.add_argument(
        "--hold", action="store_true", help="send nothing before a POST to /sim/start-traffic"
    )
