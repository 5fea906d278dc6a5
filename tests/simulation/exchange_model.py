"""An exchange that numbers what it sends: trades and depth updates by ids that name their predecessor, book
tickers by a number that Sluice does not know.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.simulation.world import Process, World

HOST, PORT = "exchange.test", 9001
SYMBOL = "btcusdt"
TRADE, DEPTH, BOOK = f"{SYMBOL}@trade", f"{SYMBOL}@depth@100ms", f"{SYMBOL}@bookTicker"


@dataclass
class Market:
    """One stream on the exchange. `sent` holds every event that there was: its number, time and payload."""

    name: str
    sent: list[tuple[int, float, bytes]] = field(default_factory=list)
    clients: list[_Client] = field(default_factory=list)
    number: int = 0

    def next(self, now: float, padding: int) -> bytes:
        previous, self.number = self.number, self.number + 1
        payload = self._payload(previous, b"x" * padding)
        self.sent.append((self.number, now, payload))
        return payload

    def _payload(self, previous: int, padding: bytes) -> bytes:
        head = b'{"E":1,"T":1,"s":"%b","pad":"%b",' % (SYMBOL.upper().encode(), padding)
        if self.name == TRADE:
            return head + b'"e":"trade","t":%d,"p":"1.0","q":"2","X":"MARKET","m":true}' % self.number
        if self.name == DEPTH:
            numbers = (self.number, self.number, previous)
            return head + b'"e":"depthUpdate","U":%d,"u":%d,"pu":%d,"b":[],"a":[]}' % numbers
        return head + b'"e":"bookTicker","u":%d,"b":"1","B":"2","a":"3","A":"4"}' % self.number

    def skip(self, count: int) -> None:
        """Events that happen and that nobody is sent."""
        for _ in range(count):
            self.next(0.0, 0)


class ExchangeModel:
    def __init__(self, world: World) -> None:
        self.world = world
        self.markets: dict[str, Market] = {}
        self.talking = True
        self.process: Process = world.process("exchange")
        world.network.listen(self.process, lambda: _Client(self), HOST, PORT)

    def open_market(self, name: str, every_s: float) -> Market:
        market = self.markets[name] = Market(name)
        self._talk(market, every_s)
        return market

    def _talk(self, market: Market, every_s: float) -> None:
        dice = self.world.rng

        def act() -> None:
            if self.talking:
                self.send(market, 1 if dice.random() < 0.8 else dice.randrange(2, 5))
                self.world.after(dice.expovariate(1 / every_s), act)

        self.world.after(dice.random() * every_s, act)

    def send(self, market: Market, count: int) -> None:
        padding = self.world.rng.choice((0, 3, 80, 700))
        payloads = [market.next(self.world.now, padding) for _ in range(count)]
        data = b"".join(_frame(payload) for payload in payloads)
        for client in market.clients:
            client.transport.write(data)


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    head = bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")
    return head + payload


class _Client(asyncio.Protocol):
    """One connection to the exchange, which names its stream in the path."""

    def __init__(self, exchange: ExchangeModel) -> None:
        self._exchange = exchange
        self._protocol = ServerProtocol()
        self._market: Market | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._protocol.send_response(self._protocol.accept(event))
                self._market = self._exchange.markets[event.path.rpartition("/")[2]]
                self._market.clients.append(self)
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                self._leave()
        for out in self._protocol.data_to_send():
            self.transport.write(out) if out else self.transport.close()

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._market is not None and self in self._market.clients:
            self._market.clients.remove(self)
