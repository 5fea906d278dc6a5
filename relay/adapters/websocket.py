"""One WebSocket connection to the exchange: its socket, its timers and its limits on what is sent.

`websocket_frames` reads the protocol. It is driven from the transport's callback, so that no task is woken
for each message, pings are answered as they are parsed, and a connection that is over is closed at once (the
library's own client waits 20 s for its next keepalive when the peer leaves TCP open).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from socket import SOCK_STREAM
from typing import cast

from websockets.frames import CloseCode
from websockets.uri import parse_uri

from relay.adapters.websocket_frames import FeedProtocol
from relay.errors import FeedError
from relay.primitives.rate_limit import SlidingWindowLimiter

# An attempt is given up within 5 s, late timers included.
OPEN_TIMEOUT_S = 4.5
# Binance pings every 20 s (spot) or 3 min (futures). A peer that ignores our ping too counts as dead.
QUIET_S = 20.0
PONG_TIMEOUT_S = 10.0
# Binance disconnects a client that sends more than 5 messages in a second, pings and pongs included.
MESSAGES_PER_S = 4
_CLOSE_TIMEOUT_S = 1.0
_PING, _PONG = 0x89, 0x8A

Sink = Callable[[list[bytes], int], None]
"""`sink(payloads, recv_ns)` gets the payloads of all messages that one read of the socket completed, at least
one, in the order of the stream. `recv_ns` is the wall clock at that read, in Unix nanoseconds. The list
belongs to the sink.
"""


class FeedConnection(asyncio.Protocol):
    """Calls `sink` from the event loop, once for each read that completed at least one message.

    `closed` resolves to the reason once the connection is over; it never raises. `address` is the peer's IP
    address, empty if the peer had already closed.
    """

    def __init__(self, url: str, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[FeedError] = loop.create_future()
        self.address = ""
        self._protocol = FeedProtocol(url)
        self._sink = sink
        self._transport: asyncio.Transport | None = None
        self._heard_at = time.monotonic()
        self._pinged = False
        self._messages = SlidingWindowLimiter(MESSAGES_PER_S, 1.0)
        self._late_pong = b""

    @property
    def heard_at(self) -> float:
        """When the peer last sent anything, monotonic."""
        return self._heard_at

    def set_sink(self, sink: Sink) -> None:
        """What is read from now on goes to another sink."""
        self._sink = sink

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports implement asyncio's interface without inheriting from it.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        self._protocol.send_handshake()
        self._flush()

    def data_received(self, data: bytes) -> None:
        recv_ns = time.time_ns()
        self._heard_at = now = time.monotonic()
        self._pinged = False
        protocol = self._protocol
        payloads = protocol.receive(data, now)
        if payloads:
            self._sink(payloads, recv_ns)
        if protocol.responded:
            protocol.responded = False
            self._respond()

    def _respond(self) -> None:
        """Send the protocol's answers, and end the connection if the protocol says that it is over."""
        if self._protocol.accepted and not self.opened.done():
            self.opened.set_result(None)
        self._flush()
        if self._protocol.failed and not self.closed.done():
            self._end(self._protocol.failure)

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            if not self._transport.is_closing() and self._may_send(data):
                self._transport.write(data)

    def _may_send(self, data: bytes) -> bool:
        """False for a ping or pong beyond the limit; only the newest such pong is sent, later (RFC 6455)."""
        if data[0] not in (_PING, _PONG) or self._messages.try_acquire(time.monotonic()):
            return True
        if data[0] == _PONG:
            self._late_pong = data
        return False

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_closed(FeedError(str(exc)) if exc else self._protocol.failure)

    def _end(self, reason: FeedError) -> None:
        """Close now; the transport gets a second to send what is written, then is aborted."""
        self._set_closed(reason)
        assert self._transport is not None
        self._transport.close()
        asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self._transport.abort)

    def _set_closed(self, reason: FeedError) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)

    def check(self, now: float) -> None:
        """Call about once a second with monotonic `now`: pings a silent peer, then closes the connection."""
        if self.closed.done() or not self._protocol.is_open:
            return
        if self._late_pong and self._transport is not None and self._messages.try_acquire(now):
            late, self._late_pong = self._late_pong, b""
            self._transport.write(late)
        silent_s = now - self._heard_at
        if silent_s > QUIET_S + PONG_TIMEOUT_S:
            self.close(f"the exchange answered nothing for {silent_s:.0f} s")
        elif silent_s > QUIET_S and not self._pinged:
            self.probe()

    def probe(self) -> None:
        """Ping the peer; its answer shows in `heard_at`."""
        if not self.closed.done() and self._protocol.is_open and not self._pinged:
            self._pinged = True
            self._protocol.send_ping()
            self._flush()

    def pause(self) -> None:
        """Stop reading; the exchange's bytes wait in the kernel."""
        if self._transport is not None and not self._transport.is_closing() and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        if (
            self._transport is not None
            and not self._transport.is_closing()
            and not self._transport.is_reading()
        ):
            self._transport.resume_reading()

    def close(self, reason: str) -> None:
        if self._protocol.is_open:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        if self._transport is not None and not self.closed.done():
            self._end(FeedError(reason))


async def open_feed(
    url: str, sink: Sink, timeout_s: float = OPEN_TIMEOUT_S, *, address: str | None = None
) -> FeedConnection:
    """Connect and shake hands. Raises FeedError for anything that goes wrong, within `timeout_s`.

    With `address` the name in the URL is not looked up; the server must still prove that name by its
    certificate.
    """
    connection: FeedConnection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = await _connect(url, sink, address)
            await asyncio.wait((connection.opened, connection.closed), return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError as error:
        if connection is not None:
            connection.close("the handshake took too long")
        raise FeedError(f"no handshake within {timeout_s:g} s") from error
    except asyncio.CancelledError:
        if connection is not None:
            connection.close("stopping")
        raise
    except OSError as error:
        raise FeedError(f"cannot connect to the exchange: {error}") from error
    if not connection.opened.done():
        raise connection.closed.result()
    return connection


async def _connect(url: str, sink: Sink, address: str | None) -> FeedConnection:
    """TCP, and TLS if the URL wants it, with the first of the name's addresses that accepts a connection.

    Names are looked up here, because uvloop's `create_connection` logs a warning when its own look-up is
    cancelled.
    """
    uri = parse_uri(url)
    context = ssl.create_default_context() if uri.secure else None
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address or uri.host, uri.port, type=SOCK_STREAM)
    last_error: OSError | None = None
    for *_, resolved in found:
        try:
            _, connection = await loop.create_connection(
                lambda: FeedConnection(url, sink),
                str(resolved[0]),
                uri.port,
                ssl=context,
                server_hostname=uri.host if context else None,
            )
        except ssl.SSLError:
            raise
        except OSError as error:
            last_error = error
        else:
            return connection
    raise last_error or OSError(f"{uri.host} has no address")
