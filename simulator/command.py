"""The simulated exchange in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from argparse import Namespace
from contextlib import suppress

import uvloop

from relay.binance.streams import Venue
from relay.errors import UsageError
from simulator.server import run_exchange
from simulator.settings import ExchangeSettings


def run(args: Namespace) -> int:
    """Prints the URL once it listens."""
    venue = Venue(args.venue)
    settings = ExchangeSettings(
        venue=venue,
        seed=args.seed,
        port=args.port,
        rate_scale=args.rate_scale,
        recording=args.replay,
        speed=args.speed,
        expected=(_never_subscribed(venue),) if args.hold else (),
    )
    try:
        uvloop.run(_serve(settings))
    except OSError as error:
        raise UsageError(f"cannot listen on port {args.port}: {error}; take another with --port") from error
    return 0


def _never_subscribed(venue: Venue) -> str:
    """Traffic waits until every expected stream is subscribed, so expecting a stream that no client uses
    holds it.
    """
    return f"{ExchangeSettings(venue=venue).shown_symbols[0]}@kline_1M"


async def _serve(settings: ExchangeSettings) -> None:
    serving = asyncio.create_task(run_exchange(settings))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with suppress(asyncio.CancelledError):
        await serving
