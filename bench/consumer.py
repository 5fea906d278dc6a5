"""The independent consumer: its own process, one subscription, counts of every stream (`bench.tally`).

`python -m bench.consumer --nats nats://127.0.0.1:4222`, then commands as in `bench.child`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import uvloop

from bench.child import Command, serve_commands
from bench.nats_tap import subscribe
from bench.tally import Tallies, Tally, quantiles_ms, spells

SUBJECT = "binance.>"


class Consumer:
    """Counts since the last reset. A message that is no event of the exchange is counted as strange."""

    def __init__(self) -> None:
        self._tallies = Tallies()
        self._unknown = 0
        self._last_ns = time.monotonic_ns()

    def take(self, buffer: bytes, start: int, end: int, now_us: int) -> None:
        try:
            self._tallies.add(buffer, start, end, now_us)
        except ValueError:
            self._unknown += 1
        self._last_ns = time.monotonic_ns()

    async def reset(self, timed: bool) -> bool:
        self._tallies = Tallies(timed=timed)
        self._unknown = 0
        return True

    async def count(self) -> dict[str, Any]:
        """`quiet_s` is how long ago the last message came."""
        return {
            "unique": {label.decode(): tally.unique for label, tally in self._tallies.streams.items()},
            "quiet_s": (time.monotonic_ns() - self._last_ns) / 1e9,
        }

    async def report(self, groups: dict[str, list[str]], spell_s: float | None) -> dict[str, Any]:
        """Counts per stream, latency per group of streams, and how it develops in steps of `spell_s`."""
        tallies = {label.decode(): tally for label, tally in self._tallies.streams.items()}
        chosen = {
            group: [tallies[name] for name in names if name in tallies] for group, names in groups.items()
        }
        return {
            "strange": self._unknown,
            "streams": {label: _counts(tally) for label, tally in tallies.items()},
            "latency_ms": {
                group: quantiles_ms(late for tally in some for late in tally.late_us)
                for group, some in chosen.items()
            },
            "spells": {
                group: [asdict(spell) for spell in spells(some, spell_s)] for group, some in chosen.items()
            }
            if spell_s
            else {},
        }


def _counts(tally: Tally) -> dict[str, int]:
    return {
        "unique": tally.unique,
        "duplicates": tally.duplicates,
        "out_of_order": tally.out_of_order,
    }


async def main(nats_url: str) -> None:
    consumer = Consumer()
    address = urlsplit(nats_url)
    tap = await subscribe(address.hostname or "127.0.0.1", address.port or 4222, SUBJECT, consumer.take)
    commands: dict[str, Command] = {
        "reset": consumer.reset,
        "count": consumer.count,
        "report": consumer.report,
    }
    serving = asyncio.ensure_future(serve_commands({"ready": True}, commands))
    # Without this, a server that disconnects a slow consumer would look like a relay that loses messages.
    done, _ = await asyncio.wait((serving, tap.closed), return_when=asyncio.FIRST_COMPLETED)
    if tap.closed in done:
        raise SystemExit(f"NATS: {tap.closed.result()}")
    await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.consumer")
    parser.add_argument("--nats", required=True)
    # Nothing here forms reference cycles, and a collection pause would count as the relay's latency.
    gc.disable()
    uvloop.run(main(parser.parse_args().nats))
