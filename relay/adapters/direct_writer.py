"""Writes to a socket at once, and not at the end of the event loop's iteration."""

from __future__ import annotations

import asyncio
import os


class DirectWriter:
    """Lets the peer start while this process still works: uvloop itself writes at the end of its iteration.

    Bytes leave in the order of writing. With TLS, or without a socket, the transport writes. Check
    `transport.is_closing()` before each write: after closing, the file descriptor may belong to another file.
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
            # The buffer is full or the connection broken: the transport waits for room or reports the error.
            sent = 0
        if sent < len(data):
            self._transport.write(data[sent:] if sent else data)
