"""The simulated exchange as a child that also writes down every event that it made, seen by anybody or not.

A record of the wire file is `length u32 | at_ns u64 | seen u8 | name length u8 | name | payload`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any, Self

import uvloop

import simulator.channel
from relay.adapters.local.simulator_process import SimulatedExchange
from relay.binance.streams import StreamKind, Venue
from simulator.report import SentTally
from simulator.server import ExchangeServer
from simulator.settings import ExchangeSettings
from tests.chaos.clock import follow
from tests.chaos.processes import Child, become_child
from tests.support.oracle import Wired

_HEAD = Struct("<IQBB")


class WireExchange(SimulatedExchange):
    """Runs from entering to leaving; `settings` are those of ExchangeSettings.

    Traffic waits for `expected`. Follows `clock` where there is one.
    """

    def __init__(self, directory: Path, *, clock: Path | None = None, **settings: Any) -> None:
        super().__init__(settings.get("venue", Venue.USDM), directory / "exchange.log")
        self._settings = settings
        self._clock = clock
        self._wire = directory / "wire"

    def __enter__(self) -> Self:
        self._server = Child(_serve, (self._settings, self._wire, self._log, self._clock))
        self.url = self._server.first
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.end()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def act(self, what: str, **query: object) -> Any:
        """Any control that simulator/controls.py offers: silence, close, refuse, inject, shutdown..."""
        return self._ask("POST", what, **query)

    def report(self) -> Any:
        return self._ask("GET", "status")

    def sent_report(self) -> dict[str, dict[str, Any]]:
        """The account so far, by stream name; see simulator.report.Sent."""
        return dict(self._ask("GET", "sent")["streams"])

    def wire(self) -> dict[str, list[Wired]]:
        """By stream name, in the order of making; ask after `stop_traffic`."""
        found: dict[str, list[Wired]] = {}
        for name, wired in read_wire(self._wire.read_bytes()):
            found.setdefault(name, []).append(wired)
        return found


def read_wire(data: bytes) -> Iterator[tuple[str, Wired]]:
    at = 0
    while at < len(data):
        length, at_ns, seen, name_bytes = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size + name_bytes
        name = data[at + _HEAD.size : start].decode()
        yield name, Wired(at_ns, bool(seen), data[start : start + length])
        at = start + length


def _serve(pipe: Connection, settings: dict[str, Any], wire: Path, log: Path, clock: Path | None) -> None:
    become_child(log)
    if clock is not None:
        follow(clock)
    descriptor = os.open(wire, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    class WireTally(SentTally):
        def __init__(self, stream: str, kind: StreamKind | None) -> None:
            super().__init__(stream, kind)
            self._name = stream.encode()

        def add_sent(self, payloads: list[bytes], now_ns: int) -> None:
            super().add_sent(payloads, now_ns)
            self._note(payloads, now_ns, seen=True)

        def add_unseen(self, payloads: list[bytes]) -> None:
            super().add_unseen(payloads)
            self._note(payloads, time.time_ns(), seen=False)

        def _note(self, payloads: list[bytes], now_ns: int, *, seen: bool) -> None:
            name = self._name
            parts = [
                _HEAD.pack(len(payload), now_ns, seen, len(name)) + name + payload for payload in payloads
            ]
            os.write(descriptor, b"".join(parts))

    simulator.channel.SentTally = WireTally  # type: ignore[attr-defined]

    async def serve() -> None:
        async with ExchangeServer(ExchangeSettings(**settings)) as exchange:
            pipe.send(exchange.url)
            asyncio.get_running_loop().add_reader(pipe.fileno(), os._exit, 0)
            await exchange.serve_forever()

    uvloop.run(serve())
