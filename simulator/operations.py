"""What can be done with a running exchange: read reports, start and change traffic, inject faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relay.errors import UsageError
from simulator.catalog import Catalog
from simulator.channel import Channel
from simulator.client import Client
from simulator.handshake_limits import HandshakeLimiter, Refusal
from simulator.market import Market
from simulator.order_book import Book
from simulator.pump import Pump
from simulator.replay import Recorder, load_recording
from simulator.report import Sent
from simulator.rest import History
from simulator.settings import ExchangeSettings

_POLL_S = 0.005
# Binance limits the weight of REST requests and not their number.
NO_LIMIT = 10**9
SHUTDOWN_STREAM = b"!serverShutdown"


class Operations:
    """The exchange apart from its server; called from one event loop.

    `clients` are the open connections, with the time each was opened.
    """

    def __init__(self, settings: ExchangeSettings) -> None:
        self.settings = settings
        self.final = False
        self.handshake_limiter = HandshakeLimiter(settings.connects_per_5min)
        self.rest_limiter = HandshakeLimiter(NO_LIMIT)
        self.clients: dict[Client, float] = {}
        self._recorder = Recorder(settings.record) if settings.record else None
        recording = load_recording(settings.recording) if settings.recording else None
        self.catalog = Catalog(settings, recording, self._recorder.write if self._recorder else None)
        self._pump = Pump(self.catalog, settings.tick_s, settings.quantum)

    # Reports

    def sent(self) -> dict[str, Sent]:
        """The report of every stream that had a subscriber or is in the recording."""
        return {name: channel.sent() for name, channel in self.catalog.channels.items()}

    def status(self) -> dict[str, Any]:
        return {
            "venue": self.settings.venue,
            "started": self.catalog.started,
            "finished": self.finished,
            "final": self.final,
            "connects": self.handshake_limiter.attempts,
            "connects_5min": self.handshake_limiter.recent(self._pump.now_s()),
            "connections": [
                {
                    "streams": client.subscriptions.names,
                    "route": client.target.route,
                    "age_s": self._age_s(client),
                }
                for client in self.clients
            ],
        }

    def _age_s(self, client: Client) -> float:
        return round(self._pump.now_s() - self.clients[client], 3)

    @property
    def finished(self) -> bool:
        """Nothing more will be sent, and everything sent has left this process."""
        return self.catalog.finished and all(client.idle for client in self.clients)

    # Traffic

    def start_traffic(self) -> None:
        """Start without waiting for expected subscribers."""
        self.catalog.start(self._pump.now_s())
        self._pump.wake()

    async def stop_traffic(self, within_s: float = 10.0) -> None:
        """Make no more events and send what was made; then the report is final.

        Sockets stay open. Frames that cannot be sent in time are discarded with their socket.
        """
        self.catalog.stop()
        await self._until(lambda: self.finished, within_s)
        for client in list(self.clients):
            if not client.idle:
                client.abort()
        self.final = True

    def flood(self, stream: str, rate_per_s: float) -> None:
        """Send exactly `rate_per_s` on this stream until `calm`; 0 is a halt of trading."""
        self.catalog.flood(stream, rate_per_s, self._pump.now_s())
        self._pump.wake()

    def follow(self, arrivals: Mapping[str, Sequence[float]]) -> None:
        """Send an event of each stream at its times, in seconds from now, and no others."""
        now_s = self._pump.now_s()
        for stream, times_s in arrivals.items():
            self.catalog.follow(stream, times_s, now_s)
        self._pump.wake()

    def calm(self, stream: str | None = None) -> None:
        self.catalog.calm(stream, self._pump.now_s())
        self._pump.wake()

    def emit(self, stream: str, count: int) -> None:
        """Send `count` events now, in addition to all others."""
        self.catalog.emit(stream, count, self._pump.now_s())
        self._pump.wake()

    async def wait_subscribed(self, *streams: str, within_s: float = 10.0) -> None:
        """Until each stream has a subscriber; raises TimeoutError."""
        channels = self.catalog.channels
        await self._until_or_raise(
            lambda: all(name in channels and channels[name].subscribers for name in streams), within_s
        )

    async def wait_sent(self, stream: str, events: int, within_s: float = 10.0) -> None:
        """Until `events` distinct events of a stream were sent; raises TimeoutError."""
        channels = self.catalog.channels
        await self._until_or_raise(
            lambda: stream in channels and channels[stream].tally.events >= events, within_s
        )

    async def wait_finished(self, within_s: float = 60.0) -> None:
        await self._until_or_raise(lambda: self.finished, within_s)

    async def _until_or_raise(self, done: Callable[[], bool], within_s: float) -> None:
        if not await self._until(done, within_s):
            raise TimeoutError(f"not within {within_s} s")

    async def _until(self, done: Callable[[], bool], within_s: float) -> bool:
        end_s = self._pump.now_s() + within_s
        # Polled, because the condition changes in many places; only tests and the end of a run wait.
        while not done() and self._pump.now_s() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        return done()

    # Faults

    def silence(self, stream: str, *, everybody: bool = False) -> None:
        """Send no more events to this stream's present sockets, with `everybody` to later ones neither; pings
        and control messages still work.
        """
        self._channel(stream).silence(everybody=everybody)

    def unsilence(self, stream: str) -> None:
        self._channel(stream).unsilence()
        self._pump.wake()

    def shutdown_notice(self, stream: str | None = None, close_after_s: float | None = None) -> int:
        """Send `serverShutdown` to the sockets of a stream, or to all; returns how many."""
        chosen = self._chosen(stream)
        for client in chosen:
            client.send_payload(
                SHUTDOWN_STREAM, b'{"e":"serverShutdown","E":%d}' % (time.time_ns() // 1_000_000)
            )
            if close_after_s is not None:
                asyncio.get_running_loop().call_later(close_after_s, client.close, 1001, "server shutdown")
        return len(chosen)

    def close_sockets(
        self, stream: str | None = None, code: int = 1001, reason: str = "", *, linger: bool = False
    ) -> int:
        """Close the sockets of a stream, or all; returns how many.

        1006 resets TCP without a Close frame; `linger` sends the frame and leaves TCP open.
        """
        chosen = self._chosen(stream)
        for client in chosen:
            (client.linger if linger else client.close)(code, reason)
        return len(chosen)

    def inject(self, stream: str, payload: bytes, *, raw: bool = False) -> int:
        """Send a payload that is no event to the sockets of a stream; with `raw`, the bytes without a
        frame.
        """
        chosen = self._chosen(stream)
        for client in chosen:
            if raw:
                client.write_raw(payload)
            else:
                client.send_payload(stream.encode(), payload)
        return len(chosen)

    def refuse(
        self, how: int | str = 503, count: int | None = None, retry_after_s: int | None = None
    ) -> None:
        """Refuse WebSocket connections: by an HTTP status, by `hang`, by `reset`; for `count` attempts or
        all.
        """
        self.handshake_limiter.refuse(Refusal(how, retry_after_s), count)

    def accept(self) -> None:
        self.handshake_limiter.accept()

    def skip(self, stream: str, count: int) -> None:
        """Send the next `count` events of a stream to no socket; REST still has them."""
        self._channel(stream).skip(count)

    def refuse_rest(
        self, how: int | str = 503, count: int | None = None, retry_after_s: int | None = None
    ) -> None:
        """As `refuse`, for REST requests."""
        self.rest_limiter.refuse(Refusal(how, retry_after_s), count)

    def accept_rest(self) -> None:
        self.rest_limiter.accept()

    def _channel(self, stream: str) -> Channel:
        if stream not in self.catalog.channels:
            raise UsageError(f"{stream} has had no subscriber yet")
        return self.catalog.channels[stream]

    def _chosen(self, stream: str | None) -> list[Client]:
        every = [client for client in self.clients if client.open]
        return [client for client in every if stream is None or stream in client.subscriptions.names]

    def end_recording(self) -> None:
        if self._recorder is not None:
            self._recorder.close()

    # simulator.rest.MarketData

    def history(self, stream: str) -> History | None:
        return self.catalog.history(stream)

    def lists(self, symbol: str) -> bool:
        return symbol in self.catalog.markets.symbols

    def order_book(self, symbol: str) -> tuple[Market, Book] | None:
        if self.settings.recording is not None:
            return None
        return self.catalog.markets.market(symbol), self.catalog.markets.book(symbol)
