"""Writing to a socket at once, and not when the event loop's turn is over."""

from __future__ import annotations

import asyncio
import os


class DirectWriter:
    """What a transport's peer is to have while this process goes on: uvloop writes at the end of its turn.

    Bytes leave in the order of writing, whichever way they go. TLS and transports without a socket keep to
    their own way. Check `transport.is_closing()` before each write: behind that the socket's number may be
    another file's.
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        raw = transport.get_extra_info("ssl_object") is None
        socket = transport.get_extra_info("socket") if raw else None
        self._fd = -1 if socket is None else socket.fileno()

    def write(self, data: bytes) -> None:
        if self._fd < 0 or self._transport.get_write_buffer_size():
            self._transport.write(data)
            return
        try:
            sent = os.write(self._fd, data)
        except OSError:
            # Full, or broken: the transport waits for room, or finds out and says so.
            sent = 0
        if sent < len(data):
            self._transport.write(data[sent:] if sent else data)
