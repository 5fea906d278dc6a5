"""The stream actor's end of the link: one ordered connection to one publisher.

After the handshake it passes the publisher's messages to its listener, synchronously from the transport's
callback, and sends batches. It holds no records: the window does.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

from relay.adapters.direct_writer import DirectWriter
from relay.delivery import link_codec
from relay.errors import LinkError
from relay.model.assignment import PublisherEndpoint

P = TypeVar("P", bound=asyncio.Protocol)
CONNECT_TIMEOUT_S = 1.0
# A publisher sends Alive twice a second; without three of them it counts as stopped.
SILENCE_S = 1.6
WRITE_BUFFER_BYTES = 1024 * 1024


class LinkListener(Protocol):
    """Owner of a link; called from the event loop, must not block or raise."""

    def hello(self) -> link_codec.Hello: ...

    def resumed(self, link: LinkClient, message: link_codec.Resume) -> None: ...

    def acknowledged(self, message: link_codec.Ack) -> None: ...

    def refused(self, message: link_codec.Refused) -> None: ...

    def fenced(self, epoch: int) -> None: ...

    def writable(self) -> None: ...


class LinkClient(asyncio.Protocol):
    """`closed` resolves to the reason once the link is over; it never raises. `connected` says whether the
    publisher has a NATS connection, `same_node` whether it shares this process's clock."""

    def __init__(self, endpoint: PublisherEndpoint, owner: LinkListener, secret: bytes) -> None:
        self.publisher = endpoint.publisher
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.connected = self.same_node = False
        self.session: int | None = None
        # Batches may be sent: there is a session, and the socket accepts bytes.
        self.ready = False
        self.opened_at = self._received_at = time.monotonic()
        self._listener = owner
        self._secret = secret
        self._decoder = link_codec.MessageDecoder(link_codec.MAX_HELLO_BYTES)
        self._transport: asyncio.Transport | None = None
        self._writer: DirectWriter | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports keep asyncio's contract without inheriting from it.
        self._transport = cast(asyncio.Transport, transport)
        self.same_node = transport.get_extra_info("socket").family == socket.AF_UNIX
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._writer = DirectWriter(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received_at = time.monotonic()
        try:
            for kind, body in self._decoder.feed(data):
                self._on_message(kind, body)
        except LinkError as error:
            self.close(str(error))

    def _on_message(self, kind: int, body: bytes) -> None:
        if self.closed.done():
            return
        if kind == link_codec.CHALLENGE:
            self._write(link_codec.hello(self._listener.hello(), self._secret, body))
            return
        message = link_codec.read_down(kind, body)
        match message:
            case link_codec.Ack():
                if message.session == self.session:
                    self._listener.acknowledged(message)
            case link_codec.Alive():
                self.connected = message.connected
            case link_codec.Resume():
                self.session = message.session
                self._update_ready()
                self._listener.resumed(self, message)
            case link_codec.Refused():
                if message.session == self.session:
                    self._listener.refused(message)
            case link_codec.Fenced():
                self._listener.fenced(message.epoch)

    def send(self, skip: int, encoded: bytes) -> None:
        """Batches in this session, without the first `skip` records; call only while `ready`."""
        assert self.session is not None
        self._write(link_codec.batches(self.session, skip, encoded))

    def _write(self, data: bytes) -> None:
        if self._writer is not None and self._transport is not None and not self._transport.is_closing():
            self._writer.write(data)

    def pause_writing(self) -> None:
        self._paused = True
        self._update_ready()

    def resume_writing(self) -> None:
        self._paused = False
        self._update_ready()
        self._listener.writable()

    def _update_ready(self) -> None:
        self.ready = self.session is not None and not self._paused and not self.closed.done()

    def silent(self, now: float) -> bool:
        return now - self._received_at > SILENCE_S

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_closed(str(exc) if exc else "the publisher closed the link")

    def bye(self) -> None:
        """Leave in order; nothing may be in flight."""
        self._write(link_codec.frame(link_codec.BYE))
        self._set_closed("handed over")
        if self._transport is not None:
            self._transport.close()

    def close(self, reason: str) -> None:
        """Leave at once; what is in flight has to be sent again."""
        self._set_closed(reason)
        if self._transport is not None:
            self._transport.abort()

    def _set_closed(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        self._update_ready()


async def open_link(endpoint: PublisherEndpoint, node: str, owner: LinkListener, secret: bytes) -> LinkClient:
    """Raises LinkError within a second."""
    return await connect(endpoint, node, lambda: LinkClient(endpoint, owner, secret))


async def connect(endpoint: PublisherEndpoint, node: str, make: Callable[[], P]) -> P:
    """Over a unix socket on the same node, else over TCP. Raises LinkError within a second."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if endpoint.node == node and endpoint.unix_path:
                _, protocol = await loop.create_unix_connection(make, endpoint.unix_path)
            else:
                host, _, port = endpoint.tcp_address.rpartition(":")
                _, protocol = await loop.create_connection(make, host.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        raise LinkError(f"cannot reach publisher {endpoint.publisher}: {error}") from error
    return protocol
