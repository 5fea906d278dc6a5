"""The simulated exchange in a process of its own, offering exact rates on command.

It never waits for a slow reader: what a system does not read at once is queued. So latency counts from the
time at which the market would have sent, and no system can lower the rate that it is offered.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence

import uvloop

from bench.child import Command, serve_commands
from simulator.server import ExchangeServer
from simulator.settings import ExchangeSettings

_TICK_S = 0.001
_NEVER_FULL_BYTES = 1 << 30
# Nobody asks REST for old trades here, and they would fill memory.
_HISTORY = 1000


class Controls:
    def __init__(self, server: ExchangeServer, streams: Sequence[str]) -> None:
        self._server = server
        self._streams = streams

    async def offer(self, rates: dict[str, float]) -> bool:
        """Even rates, the streams' events apart from each other; returns when all are set."""
        for stream, rate_per_s in rates.items():
            self._server.flood(stream, rate_per_s)
            if rate_per_s > 0:
                await asyncio.sleep(1 / rate_per_s / len(rates))
        return True

    async def replay(self, arrivals: dict[str, list[float]]) -> bool:
        """Events at these times, in seconds from now; streams that are not named fall silent."""
        self._server.follow({name: arrivals.get(name, []) for name in self._streams})
        return True

    async def sent(self) -> dict[str, int]:
        return {name: sent.events for name, sent in self._server.sent().items()}


async def main(streams: list[str]) -> None:
    settings = ExchangeSettings(
        symbols=tuple(name.partition("@")[0] for name in streams),
        rates={"*": 0.0},
        history=_HISTORY,
        tick_s=_TICK_S,
        write_high_bytes=_NEVER_FULL_BYTES,
        stamp_us=True,
    )
    async with ExchangeServer(settings) as server:
        server.start_traffic()
        controls = Controls(server, streams)
        commands: dict[str, Command] = {
            "offer": controls.offer,
            "replay": controls.replay,
            "sent": controls.sent,
        }
        await serve_commands({"url": server.url}, commands)


if __name__ == "__main__":
    gc.freeze()
    uvloop.run(main(sys.argv[1:]))
