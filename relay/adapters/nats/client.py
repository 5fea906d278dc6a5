"""nats-py as a transport. Every use of its internals is here, written for nats-py 2.16.

Publishing through its public API and receiving acknowledgements in a subscription's callback costs 14.6 us of
CPU for each message; writing finished bytes to its transport and reading replies as they arrive costs 3.5 us
(window of 128, ten streams, uvloop, 2 shared cores). `test_connection.py` in the integration tests fails if
an internal name changes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

from relay.adapters.direct_writer import DirectWriter
from relay.adapters.nats.reply_tap import ReplyHook, ReplyTap


@contextmanager
def _without(package: str) -> Iterator[None]:
    """Importing the package fails inside the block, unless it was imported before."""
    absent = package not in sys.modules
    if absent:
        sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[package]


# nats-py imports aiohttp for WebSocket servers, which `nats.servers` does not allow, and does without if the
# import fails. In every publisher it would take 7 MB, and 145 ms of CPU time at the start. This is at
# module level, since RawClient needs its base class. A process that has imported aiohttp already keeps it.
with _without("aiohttp"):
    from nats.aio.client import Client
    from nats.aio.transport import TcpTransport
    from nats.errors import Error, NoRespondersError

__all__ = ["Client", "Error", "NoRespondersError", "Pong", "RawClient"]


class Pong(Protocol):
    """A future, or an object whose `set_result` acts at once."""

    def set_result(self, result: bool, /) -> None: ...


class RawClient(Client):
    """A client that writes finished protocol bytes and passes replies on synchronously.

    What `write` and `ping` are given leaves in that order. `public_key` is the nkey of a user who signs.
    """

    def __init__(self, *, demands_tls: bool, public_key: str | None) -> None:
        super().__init__()
        self._demands_tls = demands_tls
        self._public_nkey = public_key
        self._writer: DirectWriter | None = None

    async def take_replies(self, subject: str, on_reply: ReplyHook) -> None:
        """Pass every message on `subject` to `on_reply`, which must neither block nor raise."""
        self._sid += 1
        self.write(f"SUB {subject} {self._sid}\r\n".encode())
        while not await self._has_parsed_all():
            pass
        raw = self._raw
        raw.set_protocol(ReplyTap(raw.get_protocol(), str(self._sid).encode(), on_reply, self._ponged))

    async def _has_parsed_all(self) -> bool:
        """Whether nats-py has parsed all that has arrived, and holds no part of a message."""
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.ping(pong)
        # Shielded: nats-py fails when it resolves a cancelled future.
        await asyncio.shield(pong)
        assert isinstance(self._transport, TcpTransport)
        assert self._transport._io_reader is not None
        return not self._ps.buf and not cast(Any, self._transport._io_reader)._buffer

    def write(self, data: bytes) -> None:
        """After the end of the connection it is discarded: the owner is informed and sends it again."""
        raw = self._raw
        # uvloop raises here, where asyncio discards the bytes.
        if raw.is_closing():
            return
        if self._writer is None:
            self._writer = DirectWriter(raw)
        self._writer.write(data)

    def ping(self, pong: Pong) -> None:
        """`pong` gets its result when the server has read what was written before; never, if that fails."""
        self._pongs.append(cast(asyncio.Future[Any], pong))
        self.write(b"PING\r\n")

    def _ponged(self) -> None:
        if self._pongs:
            self._pongs.pop(0).set_result(True)
            self._pings_outstanding = 0

    @property
    def unsent_bytes(self) -> int:
        """What waits in memory for the kernel to accept it."""
        return self._raw.get_write_buffer_size()

    def abort(self) -> None:
        """End the connection now; `close()` would wait for a frozen server to accept what is unsent."""
        if isinstance(self._transport, TcpTransport) and self._transport._io_writer is not None:
            self._transport._io_writer.transport.abort()

    @property
    def _raw(self) -> asyncio.Transport:
        assert isinstance(self._transport, TcpTransport)
        assert self._transport._io_writer is not None
        return cast(asyncio.Transport, self._transport._io_writer.transport)

    def _connect_command(self) -> bytes:
        # nats-py upgrades to TLS only if the server asks for it, and else would send a password in the clear.
        if self._demands_tls and self._raw.get_extra_info("ssl_object") is None:
            raise Error("the server offers no TLS, which this configuration demands")
        return super()._connect_command()
