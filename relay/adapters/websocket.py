"""One WebSocket connection to the exchange: bytes in, whole payloads out, all of one read together.

The protocol itself is websockets' sans-I/O layer, driven from the transport's callback: no task is woken per
message, pings are answered as they are parsed, and a connection that is over is left at once (the library's
own client waits 20 s for its next keepalive when the peer leaves TCP open). Frames are told apart here: a
whole data frame, which nearly all are, goes past the library (0.5 us instead of 2.3); the rest goes to it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from socket import SOCK_STREAM
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from relay.errors import FeedError, TurnedAwayError
from relay.model.record_batch import MAX_BATCH_BYTES
from relay.primitives.rate_limit import SlidingWindowLimiter

# Given up within 5 s, late timers included.
OPEN_TIMEOUT_S = 4.5
# Any frame can reach 35 kB in recordings; a NATS server takes 1 MiB by default, envelope included.
MAX_FRAME_BYTES = MAX_BATCH_BYTES // 2
# A frame that goes to the library costs 40 us, whatever its size. Binance sends such ones now and then; who
# sends them by the thousand would take all the time of the actor.
SLOW_FRAMES_PER_S = 1000
# Binance pings every 20 s (spot) or 3 min (futures). A peer that answers nothing for this long is gone.
QUIET_S = 20.0
PONG_TIMEOUT_S = 10.0
# Binance cuts a client that sends more than 5 messages in a second, pings and pongs included.
MESSAGES_PER_S = 4
MAX_RESPONSE_BYTES = 64 * 1024
_CLOSE_TIMEOUT_S = 1.0
# The first byte of a text or binary frame that is final and has no extension's bits.
_WHOLE = frozenset({0x81, 0x82})
# By the second byte of a frame: 126 and 127 announce a longer length, and a server must not mask.
_HEAD_BYTES = {126: 4, 127: 10}
_MASKED = 128
_PING, _PONG = 0x89, 0x8A

Sink = Callable[[list[bytes], int], None]


class FeedConnection(asyncio.Protocol):
    """Calls `sink(payloads, recv_ns)` from the event loop, once per read that completed at least one message.

    `closed` resolves to the reason once the connection is over; it never raises. `address` is the peer's,
    empty if that was gone at once.
    """

    def __init__(self, url: str, sink: Sink) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[FeedError] = loop.create_future()
        self.address = ""
        self._protocol = ClientProtocol(parse_uri(url), max_size=MAX_FRAME_BYTES)
        self._sink = sink
        self._transport: asyncio.Transport | None = None
        self._fragments: list[bytes] = []
        self._rest = b""
        self._handed_over = False
        # Between the handshake and the end; asking the library costs a call at each read.
        self._is_open = False
        self._heard_at = time.monotonic()
        self._pinged = False
        self._messages = SlidingWindowLimiter(MESSAGES_PER_S, 1.0)
        self._slow_frames = SlidingWindowLimiter(SLOW_FRAMES_PER_S, 1.0)
        self._late_pong = b""

    @property
    def heard_at(self) -> float:
        """When the peer last sent anything, monotonic."""
        return self._heard_at

    def set_sink(self, sink: Sink) -> None:
        """Give what is read from now on to another sink."""
        self._sink = sink

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports keep asyncio's contract without inheriting from it.
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        recv_ns = time.time_ns()
        self._heard_at = time.monotonic()
        self._pinged = False
        payloads: list[bytes] = []
        if self._rest:
            data = self._rest + data
        if not self._is_open and self._protocol.state is State.CONNECTING:
            data = self._shake_hands(data, payloads)
        self._rest = self._split(data, payloads) if self._is_open else data
        if payloads:
            self._sink(payloads, recv_ns)
        if self._handed_over:
            self._handed_over = False
            self._answer()

    def _answer(self) -> None:
        """Send what the library has to say to what it was given, and leave if it says that all is over."""
        self._flush()
        state, refused = self._protocol.state, self._protocol.handshake_exc
        over = refused is not None or state in (State.CLOSING, State.CLOSED)
        if over and not self.closed.done():
            self._end(self._reason())

    def _shake_hands(self, data: bytes, payloads: list[bytes]) -> bytes:
        """Give the library the response, and return what follows it or is not whole yet."""
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 and len(data) < MAX_RESPONSE_BYTES:
            return data
        if not data.startswith(b"HTTP/1.1 101"):
            end = len(data)
        self._hand_over(data[:end], payloads)
        return data[end:]

    def _split(self, data: bytes, payloads: list[bytes]) -> bytes:
        """Cut whole frames off `data` (RFC 6455, 5.2) and return what is left of the last one."""
        at, total = 0, len(data)
        while total - at >= 2:
            start = at + _HEAD_BYTES.get(data[at + 1], 2)
            if start > total:
                break
            length = data[at + 1] if start == at + 2 else int.from_bytes(data[at + 2 : start], "big")
            lawful = length <= MAX_FRAME_BYTES and data[at + 1] < _MASKED
            end = start + length if lawful else total
            if end > total:
                break
            if lawful and data[at] in _WHOLE and not self._fragments:
                payloads.append(data[start:end])
            else:
                self._hand_over(data[at:end], payloads)
                if not self._is_open:
                    return b""
            at = end
        return data[at:]

    def _hand_over(self, data: bytes, payloads: list[bytes]) -> None:
        """To the library: the response, control frames, fragments, and all that breaks the protocol."""
        if not self._slow_frames.try_acquire(self._heard_at):
            reason = f"the exchange sent more than {SLOW_FRAMES_PER_S} pings and fragments in a second"
            self.close(reason, CloseCode.POLICY_VIOLATION)
            return
        self._handed_over = True
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._take_frame(event, payloads)
            elif isinstance(event, Response):
                self._take_response()
        self._is_open = self._protocol.state is State.OPEN

    def _take_frame(self, frame: Frame, payloads: list[bytes]) -> None:
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
            if frame.fin:
                payloads.append(bytes(frame.data))
            else:
                self._fragments = [bytes(frame.data)]
        elif frame.opcode is Opcode.CONT:
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                payloads.append(b"".join(self._fragments))
                self._fragments = []

    def _take_response(self) -> None:
        if self._protocol.handshake_exc is None and not self.opened.done():
            self.opened.set_result(None)

    def _flush(self) -> None:
        assert self._transport is not None
        for data in self._protocol.data_to_send():
            if data and not self._transport.is_closing() and self._may_send(data):
                self._transport.write(data)

    def _may_send(self, data: bytes) -> bool:
        """Of pongs beyond what a second allows, only the newest goes out, later (RFC 6455, 5.5.3)."""
        if data[0] not in (_PING, _PONG) or self._messages.try_acquire(time.monotonic()):
            return True
        if data[0] == _PONG:
            self._late_pong = data
        return False

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle(FeedError(str(exc)) if exc else self._reason())

    def _reason(self) -> FeedError:
        protocol = self._protocol
        if protocol.handshake_exc is not None:
            return _refusal(protocol.handshake_exc)
        if protocol.parser_exc is not None:
            return FeedError(f"the exchange broke the protocol: {protocol.parser_exc}")
        if protocol.close_rcvd is not None:
            return FeedError(f"the exchange closed the connection: {protocol.close_rcvd}")
        return FeedError("the connection ended without a close frame")

    def _end(self, reason: FeedError) -> None:
        """Leave now; the transport gets a moment to send what is written, then is cut."""
        self._settle(reason)
        assert self._transport is not None
        self._transport.close()
        asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self._transport.abort)

    def _settle(self, reason: FeedError) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)

    def check(self, now: float) -> None:
        """Call about once a second with monotonic `now`: pings a silent peer, then leaves it."""
        if self.closed.done() or self._protocol.state is not State.OPEN:
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
        """Ask the peer for a sign of life, which shows in `heard_at`."""
        if not self.closed.done() and self._protocol.state is State.OPEN and not self._pinged:
            self._pinged = True
            self._protocol.send_ping(b"")
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

    def close(self, reason: str, code: int = CloseCode.NORMAL_CLOSURE) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code)
            self._is_open = False
            self._flush()
        if self._transport is not None and not self.closed.done():
            self._end(FeedError(reason))


def _refusal(error: Exception) -> FeedError:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        after = error.response.headers.get("Retry-After", "")
        retry_after_s = float(after) if after.isdigit() else None
        return TurnedAwayError(f"the exchange refused the connection with HTTP {status}", retry_after_s)
    return FeedError(f"the exchange's handshake failed: {error}")


async def open_feed(
    url: str, sink: Sink, timeout_s: float = OPEN_TIMEOUT_S, *, address: str | None = None
) -> FeedConnection:
    """Connect and shake hands. Raises FeedError for anything that goes wrong, within `timeout_s`.

    With `address` the name in the URL is not looked up; its certificate is asked for all the same.
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
    except OSError as error:
        raise FeedError(f"cannot connect to the exchange: {error}") from error
    if not connection.opened.done():
        raise connection.closed.result()
    return connection


async def _connect(url: str, sink: Sink, address: str | None) -> FeedConnection:
    """TCP, and TLS if the URL wants it, with the first of the name's addresses where somebody listens.

    Names are looked up here: uvloop's own look-up for a connection, once it is given up, ends in a warning.
    """
    uri = parse_uri(url)
    context = ssl.create_default_context() if uri.secure else None
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address or uri.host, uri.port, type=SOCK_STREAM)
    trouble: OSError | None = None
    for *_, place in found:
        try:
            _, connection = await loop.create_connection(
                lambda: FeedConnection(url, sink),
                str(place[0]),
                uri.port,
                ssl=context,
                server_hostname=uri.host if context else None,
            )
        except ssl.SSLError:
            raise
        except OSError as error:
            trouble = error
        else:
            return connection
    raise trouble or OSError(f"{uri.host} has no address")
