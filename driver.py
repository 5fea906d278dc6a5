#!/usr/bin/env python
"""Sluice's command line. Parses, calls a module of cli, and turns errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from cli.arguments import AUTO, moment, publisher_count
from relay.errors import ConfigError, SluiceError, UsageError
from relay.primitives.argument_types import FILES, completed_by, positive
from simulator import arguments as simulator_arguments

DONE, FAILED, MISUSED = 0, 1, 2
SHIPPED_CONFIG = Path(__file__).resolve().parent / "shards.yaml"
EPILOG = "exit codes: 0 done, 1 failed, 2 bad usage or configuration"


class Command(NamedTuple):
    """`runner` names a module and its function, imported only when the command is used."""

    runner: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    summary: str
    more: str


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        return MISUSED
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    if not args.debug:
        sys.excepthook = _one_line
    try:
        return _run(COMMANDS[args.command].runner, args)
    except (ConfigError, UsageError) as error:
        return _failed(error, args, MISUSED)
    except SluiceError as error:
        return _failed(error, args, FAILED)
    except BrokenPipeError:
        # The reader of the pipe, such as `head`, has closed it; without this the interpreter reports it again
        # at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _run(runner: str, args: argparse.Namespace) -> int:
    module, _, function = runner.rpartition(".")
    code: int = getattr(importlib.import_module(module), function)(args)
    sys.stdout.flush()
    return code


def _failed(error: SluiceError, args: argparse.Namespace, code: int) -> int:
    if args.debug:
        raise error
    print(f"driver.py: {error}", file=sys.stderr)
    return code


def _one_line(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """Takes the place of a traceback; Python ends with 1 after this."""
    what = "interrupted" if issubclass(kind, KeyboardInterrupt) else f"unexpected {kind.__name__}: {error}"
    print(f"driver.py: {what}; --debug shows where", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="driver.py",
        description="Relays Binance market-data streams to NATS over Ray actors.",
        epilog=EPILOG,
    )
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, command in COMMANDS.items():
        description = f"{command.summary[0].upper()}{command.summary[1:]}. {command.more}"
        sub = commands.add_parser(name, help=command.summary, description=description, epilog=EPILOG)
        # Without a default, which would override the flag where it is given before the command.
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.add_arguments(sub)
        sub.set_defaults(parser=parser)
    return parser


def _demo(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument(
        "--seconds", type=positive, default=60.0, metavar="S", help="length of the traffic (60)"
    )
    parser.add_argument("--flood", metavar="STREAM", help="flood this stream in the middle third of the run")
    parser.add_argument(
        "--flood-rate", type=positive, default=20_000.0, metavar="R", help="events/s of the flood (20000)"
    )
    parser.add_argument(
        "--rate-scale", type=positive, default=1.0, metavar="X", help="multiply the exchange's traffic by X"
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    _address(parser)
    parser.add_argument(
        "--simulate", action="store_true", help="relay a simulated exchange, on a Ray of its own"
    )
    parser.add_argument(
        "--embedded-nats", action="store_true", help="start a nats-server on loopback, on a Ray of its own"
    )
    parser.add_argument("--watch", action="store_true", help="apply the file again whenever it changes")


def _status(parser: argparse.ArgumentParser) -> None:
    _address(parser)
    _json(parser)


def _scale(parser: argparse.ArgumentParser) -> None:
    _address(parser)
    count = parser.add_argument("count", type=publisher_count, metavar="N|auto", help="how many, or auto")
    completed_by(count, AUTO)


def _drain(parser: argparse.ArgumentParser) -> None:
    _address(parser)
    parser.add_argument("kind", choices=("publisher", "stream"), help="what NAME is")
    parser.add_argument("name", metavar="NAME", help="such as p0, or btcusdt@trade")
    _deadline(parser)


def _resume(parser: argparse.ArgumentParser) -> None:
    _address(parser)
    parser.add_argument("stream", metavar="STREAM", help="such as btcusdt@trade")
    _deadline(parser)


def _deadline(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deadline", type=positive, default=60.0, metavar="S", help="seconds to wait until it is done (60)"
    )


def _apply(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    _address(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the difference and change nothing")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until the change is complete")
    parser.add_argument(
        "--deadline", type=positive, default=120.0, metavar="S", help="seconds to wait for that (120)"
    )


def _down(parser: argparse.ArgumentParser) -> None:
    _address(parser)
    parser.add_argument(
        "--deadline", type=positive, default=10.0, metavar="S", help="seconds for the drain (10)"
    )


def _check(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    parser.add_argument("--live", action="store_true", help="prove first data on every stream's own socket")
    parser.add_argument(
        "--deadline", type=positive, default=30.0, metavar="S", help="seconds to wait for first data (30)"
    )


def _audit(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    _json(parser)
    parser.add_argument("--seconds", type=positive, default=10.0, metavar="S", help="how long to listen (10)")
    parser.add_argument("--stored", action="store_true", help="read all that is stored instead")


def _losses(parser: argparse.ArgumentParser) -> None:
    _config(parser)
    _json(parser)
    parser.add_argument(
        "--since", type=moment, metavar="WHEN", help="gaps that ended since then: 30m, 24h, or a UTC time"
    )
    parser.add_argument("--stream", metavar="NAME", help="one stream alone, such as btcusdt@trade")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"), help="whose completion to print")


def _config(parser: argparse.ArgumentParser) -> None:
    config = parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=SHIPPED_CONFIG,
        metavar="FILE",
        help="the configuration (the shards.yaml beside driver.py)",
    )
    completed_by(config, FILES)


def _address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="the Ray cluster; without it, the one that runs here"
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="every figure, for programs")


COMMANDS = {
    "demo": Command(
        "cli.demo.run", _demo, "the whole relay on this machine, then an audit",
        "Starts a nats-server, a simulated exchange and a Ray of its own, relays for a while, reads all of it"
        " back from NATS and compares it with what the exchange sent. Leaves no process and no file behind.",
    ),
    "run": Command(
        "cli.run.run", _run_arguments, "bring the relay to what the configuration says, then watch it",
        "Joins the Ray cluster that runs here, else starts one. On a cluster that it started, SIGTERM or"
        " Ctrl-C drains the relay and ends it; on one that it joined, the actors stay when it ends. With"
        " --watch a changed file is applied as `apply` does it, a wrong one is reported and changes nothing.",
    ),
    "status": Command(
        "cli.status.status", _status, "one look at every stream and publisher", "Fails if no relay runs.",
    ),
    "top": Command(
        "cli.status.top", _address, "the live table, until q or Ctrl-C", "Fails if no relay runs.",
    ),
    "scale": Command(
        "cli.scale_and_down.scale", _scale, "change the number of publishers now",
        "Prints before and after and waits until it is done. A number holds until `scale auto`.",
    ),
    "drain": Command(
        "cli.drain.drain", _drain, "take one publisher or one stream out of the relay",
        "A publisher's streams move to others and it ends; another one takes its place where the number says"
        " so. A stream stops reading, publishes what it holds, and stays stopped until `resume`, or until an"
        " applied configuration changes it; what the exchange sends meanwhile is lost.",
    ),
    "resume": Command(
        "cli.drain.resume", _resume, "start a drained stream again",
        "What the exchange sent meanwhile is announced as lost, where the stream has ids.",
    ),
    "apply": Command(
        "cli.apply.run", _apply, "change the running relay to what a configuration says",
        "Touches only what differs: a removed stream drains first, every other one keeps its socket. Prints"
        " the difference, waits until it is in force, and says when each stream subscribed and had its first"
        " data. A wrong file changes nothing. To roll back, apply the old file.",
    ),
    "down": Command(
        "cli.scale_and_down.down", _down, "drain and remove every actor",
        "What cannot be published before the deadline stays in the journals for the next start.",
    ),
    "check": Command(
        "cli.check.run", _check, "validate a configuration",
        "Prints each stream's URL and subject; starts nothing.",
    ),
    "audit": Command(
        "cli.audit.run", _audit, "consume from NATS alone: loss, duplicates, order, latency",
        "Reads without acknowledging, for some seconds from now on. Exits 1 if it finds anything.",
    ),
    "losses": Command(
        "cli.losses.run", _losses, "the loss ledger: what was missed, and what of it was healed",
        "Reads the ledger back from JetStream, as far back as nats.stream.max_age and max_bytes keep it."
        " Exits with 0 whatever the ledger holds. Core delivery keeps none: it says what to do instead.",
    ),
    "exchange": Command(
        "simulator.command.run", simulator_arguments.add_arguments,
        "the simulated exchange alone, for consumers and tests",
        "Speaks Binance's WebSocket protocol on loopback, without a key or a network.",
    ),
    "completion": Command(
        "cli.completion_command.run", _completion, "print what bash or zsh needs to complete commands",
        'For this shell: eval "$(.venv/bin/python driver.py completion bash)". It answers to driver.py, to'
        " .venv/bin/python driver.py and to an alias named sluice.",
    ),
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
