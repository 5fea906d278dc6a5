"""nats-py as a transport: every use of its internals is here, written for nats-py 2.16.

Publishing through its public API and a subscription's callback costs 14.6 us of CPU a message with its
acknowledgement; handing finished bytes to its transport and taking replies as they are parsed costs 3.5 us
(window of 128, ten streams, uvloop, 2 shared cores). `tests/integration/test_bus.py` fails if a name moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error

# Subject, data and raw headers (empty if there are none) of one reply.
ReplyHook = Callable[[bytes, bytes, bytes | None], None]


class RawClient(Client):
    """A client that writes finished protocol bytes and gives replies away synchronously.

    What goes through `write` and `ping` leaves in that order. `public_key` is the nkey of a user who signs.
    """

    def __init__(self, *, demands_tls: bool, public_key: str | None) -> None:
        super().__init__()
        self._demands_tls = demands_tls
        self._public_nkey = public_key
        self._reply_sid = -1
        self._on_reply: ReplyHook | None = None

    async def take_replies(self, subject: str, on_reply: ReplyHook) -> None:
        """Every message on `subject` goes to `on_reply`, which must neither block nor raise."""
        self._on_reply = on_reply
        self._sid += 1
        self._reply_sid = self._sid
        self.write(f"SUB {subject} {self._reply_sid}\r\n".encode())
        # Shielded: nats-py fails when it resolves a cancelled future.
        await asyncio.shield(self.ping())

    def write(self, data: bytes) -> None:
        """After the end of the connection it goes nowhere: the owner hears of that and sends it again."""
        raw = self._raw
        # uvloop raises where asyncio would forget the bytes.
        if not raw.is_closing():
            raw.write(data)

    def ping(self) -> asyncio.Future[bool]:
        """Resolves when the server has taken everything written before; never, if the connection breaks."""
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self.write(b"PING\r\n")
        return pong

    @property
    def unsent_bytes(self) -> int:
        """What the kernel has not taken yet."""
        return self._raw.get_write_buffer_size()

    def abort(self) -> None:
        """End the connection now; `close()` would wait for a frozen server to take what is unsent."""
        if isinstance(self._transport, TcpTransport) and self._transport._io_writer is not None:
            self._transport._io_writer.transport.abort()

    @property
    def _raw(self) -> asyncio.WriteTransport:
        assert isinstance(self._transport, TcpTransport)
        assert self._transport._io_writer is not None
        return self._transport._io_writer.transport

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if sid == self._reply_sid and self._on_reply is not None:
            self._on_reply(subject, data, headers)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)

    def _connect_command(self) -> bytes:
        # nats-py upgrades to TLS only if the server asks for it, and would send a password in the clear.
        if self._demands_tls and self._raw.get_extra_info("ssl_object") is None:
            raise Error("the server offers no TLS, which this configuration demands")
        return super()._connect_command()
