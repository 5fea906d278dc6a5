"""`check`: validates the configuration, and with `--live` waits for data on every stream.

The streams are read with the relay's own connection, so that a check proves what the relay will use.
"""

from __future__ import annotations

import asyncio
import os
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from cli.display.terminal import Tone
from cli.screen import Screen
from relay.adapters.websocket import open_feed
from relay.binance.classifier import PayloadClass, classify
from relay.binance.streams import StreamSpec
from relay.config import StreamSettings, load_config
from relay.errors import FeedError

# Binance counts 300 connection attempts in five minutes for each address; what runs already needs some.
AT_ONCE = 50


def run(args: Namespace) -> int:
    streams = load_config(args.config, os.environ).streams
    screen = Screen()
    widths = [max(len(text) for text in column) for column in zip(*map(_texts, streams), strict=True)]
    for settings in streams:
        columns = (text.ljust(width) for text, width in zip(_texts(settings), widths, strict=True))
        screen.print_line("  ".join(columns).rstrip())
    if not args.live:
        screen.print_line(f"{args.config} is valid: {len(streams)} streams", Tone.GOOD)
        return 0
    return asyncio.run(_prove(streams, args.deadline, screen))


def _texts(settings: StreamSettings) -> tuple[str, ...]:
    return settings.spec.name, settings.url, settings.subject, "critical" if settings.critical else ""


async def _prove(streams: Sequence[StreamSettings], deadline_s: float, screen: Screen) -> int:
    """Prints each result as it comes; returns 1 if a stream that must have data has none, else 0."""
    turns = asyncio.Semaphore(AT_ONCE)
    screen.print_line(f"waiting up to {deadline_s:g} s for first data on {len(streams)} streams")
    failures = await asyncio.gather(*(_prove_one(one, deadline_s, turns, screen) for one in streams))
    failed = sum(failures)
    screen.print_line(
        f"{failed} of {len(streams)} streams gave no data"
        if failed
        else f"data on all {len(streams)} streams",
        Tone.BAD if failed else Tone.GOOD,
    )
    return 1 if failed else 0


async def _prove_one(
    settings: StreamSettings, deadline_s: float, turns: asyncio.Semaphore, screen: Screen
) -> bool:
    """Whether it failed."""
    async with turns:
        begun = time.monotonic()
        problem = await _first_event(settings, deadline_s)
    name = settings.spec.name
    if not problem:
        screen.print_line(f"{name}: data after {time.monotonic() - begun:.2f} s")
        return False
    if problem == _SILENT and settings.spec.silence_limit_s is None:
        screen.print_line(f"{name}: connected; this kind of stream may be silent for days", Tone.WARN)
        return False
    screen.print_line(f"{name}: {problem}", Tone.BAD)
    return True


_SILENT = "connected, but no data came; Binance is silent on a wrong symbol or route"


async def _first_event(settings: StreamSettings, deadline_s: float) -> str:
    """Empty once an event of the stream has come, else what went wrong."""
    loop = asyncio.get_running_loop()
    gives_up_at = loop.time() + deadline_s
    found: asyncio.Future[str] = loop.create_future()

    def sink(payloads: list[bytes], _recv_ns: int) -> None:
        if not found.done() and (finding := _finding(settings.spec, payloads)) is not None:
            found.set_result(finding)

    try:
        connection = await open_feed(settings.url, sink, deadline_s)
    except FeedError as error:
        if isinstance(error.__cause__, TimeoutError):
            return f"no connection to {settings.url} within {deadline_s:g} s"
        return f"cannot connect to {settings.url}: {error.__cause__ or error}"
    ends: set[asyncio.Future[Any]] = {found, connection.closed}
    await asyncio.wait(ends, timeout=gives_up_at - loop.time(), return_when=asyncio.FIRST_COMPLETED)
    closed_by_exchange = connection.closed.done()
    connection.close("the check is over")
    if found.done():
        return found.result()
    return "the exchange closed the connection before any data" if closed_by_exchange else _SILENT


def _finding(spec: StreamSpec, payloads: list[bytes]) -> str | None:
    """Empty if the first data of a read is the stream's, else what is wrong; None if it is no data."""
    for payload in payloads:
        classification = classify(spec, payload)
        if classification.payload_class is PayloadClass.ACCEPTED:
            return ""
        if classification.payload_class is PayloadClass.REJECTED:
            return f"the first data is not this stream's: {classification.reason}"
    return None
