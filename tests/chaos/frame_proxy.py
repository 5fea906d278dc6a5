"""A WebSocket proxy that cuts what the exchange sends into frames and meddles between them: a hostile peer.

Frames of the exchange pass unchanged, so the accounts of both ends hold; what is inserted, dripped or left
open is the test's.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.chaos.proxy import CHUNK_BYTES, LoopThread, stop_listening

END = b"\r\n\r\n"
CONTINUATION, TEXT, BINARY, CLOSE, PING = 0x0, 0x1, 0x2, 0x8, 0x9
FINAL, COMPRESSED = 0x80, 0x40
_MASKED = 0x80


def frame(payload: bytes, opcode: int = TEXT, *, flags: int = FINAL, length: int | None = None) -> bytes:
    """A server's frame (RFC 6455, 5.2); `length` is what its head claims, where that is to be a lie."""
    size = len(payload) if length is None else length
    if size < 126:
        return bytes([flags | opcode, size]) + payload
    if size < 1 << 16:
        return bytes([flags | opcode, 126]) + size.to_bytes(2, "big") + payload
    return bytes([flags | opcode, 127]) + size.to_bytes(8, "big") + payload


def head_of(data: bytes) -> tuple[int, int] | None:
    """How long the head of the first frame is, mask included, and how long its payload; None if it is cut."""
    if len(data) < 2:
        return None
    short = data[1] & ~_MASKED
    at = {126: 4, 127: 10}.get(short, 2)
    if len(data) < at:
        return None
    size = short if at == 2 else int.from_bytes(data[2:at], "big")
    return at + (4 if data[1] & _MASKED else 0), size


@dataclass(eq=False)
class Call:
    """One connection of the relay, from its handshake on. `opened_at` and `left_at` are monotonic.

    `passed` are the payloads that it was sent before it was spoilt, `closed_with` is the code of its Close
    frame.
    """

    client: asyncio.StreamWriter
    opened_at: float = field(default_factory=time.monotonic)
    passed: list[bytes] = field(default_factory=list)
    spoilt: bool = False
    deaf: bool = False
    slow: bool = False
    left_at: float | None = None
    closed_with: int | None = None


class FrameProxy:
    """Listens from entering to leaving; call it from any thread. With `tls` that is what it speaks.

    `drips` makes new connections get a byte in `DRIP_S`, from the handshake on; `extra_header` is a line of
    the answer to their handshake that spoils it. `accepted` counts those with which TLS, if any, came about.
    """

    DRIP_S = 1.0

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.calls: list[Call] = []
        self.accepted = 0
        self.drips = False
        self.extra_header = b""
        self._target_port = target_port
        self._tls = tls
        self._port = 0

    def __enter__(self) -> Self:
        self._thread = LoopThread("frame proxy")
        self._thread.run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.run(stop_listening(self._server))
        self._thread.close()

    @property
    def url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._port}"

    @property
    def open_calls(self) -> list[Call]:
        return [call for call in self.calls if call.left_at is None]

    def insert(self, data: bytes, *, spoils: bool = False, deaf: bool = False) -> list[Call]:
        """Send this to every open connection, behind a whole frame. If it `spoils` them, what comes later
        need not arrive; a `deaf` one stays open at this end whatever the other does, and says no more."""
        return list(self._thread.run(_now(self._insert, data, spoils, deaf)))

    def drip(self) -> int:
        """The present connections get a byte in `DRIP_S` from now on; returns how many."""
        return int(self._thread.run(_now(self._drip)))

    def cut(self) -> int:
        """End the present connections; returns how many."""
        return int(self._thread.run(_now(self._cut)))

    def _insert(self, data: bytes, spoils: bool, deaf: bool) -> list[Call]:
        chosen = self.open_calls
        for call in chosen:
            call.spoilt, call.deaf = call.spoilt or spoils, call.deaf or deaf
            call.client.write(data)
        return chosen

    def _drip(self) -> int:
        for call in self.open_calls:
            call.slow = True
        return len(self.open_calls)

    def _cut(self) -> int:
        chosen = self.open_calls
        for call in chosen:
            call.client.transport.abort()
        return len(chosen)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._attend, "127.0.0.1", 0, limit=16 * CHUNK_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _attend(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        writers = [client]
        try:
            if self._tls is not None:
                await client.start_tls(self._tls)
            self.accepted += 1
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
            writers.append(back)
            await self._serve(reader, client, there, back)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for writer in writers:
                writer.transport.abort()

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        request = await reader.readuntil(END)
        back.write(request)
        if b"Upgrade: websocket" in request:
            call = Call(client, spoilt=bool(self.extra_header), slow=self.drips)
            await self._carry(call, reader, there, back)
        else:
            await _both(_copy(reader, back), _copy(there, client))

    async def _carry(
        self,
        call: Call,
        reader: asyncio.StreamReader,
        there: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        self.calls.append(call)
        try:
            await _both(self._heed(call, reader, back), self._pass_on(call, there))
        finally:
            call.left_at = call.left_at or time.monotonic()

    async def _heed(self, call: Call, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """What the relay says, and its leaving."""
        data = b""
        with suppress(ConnectionError):
            while more := await reader.read(CHUNK_BYTES):
                data = _heard(call, data + more)
                back.write(more)
        call.left_at = time.monotonic()
        if call.deaf:
            back.transport.abort()
            await asyncio.Event().wait()

    async def _pass_on(self, call: Call, there: asyncio.StreamReader) -> None:
        response = await there.readuntil(END)
        await self._send(call, response.removesuffix(b"\r\n") + self.extra_header + b"\r\n")
        data = b""
        while more := await there.read(CHUNK_BYTES):
            data += more
            whole = _whole(data, call)
            if not call.deaf:
                await self._send(call, data[:whole])
            data = data[whole:]
        if call.deaf:
            await asyncio.Event().wait()

    async def _send(self, call: Call, data: bytes) -> None:
        at = 0
        while call.slow and at < len(data):
            call.client.write(data[at : at + 1])
            at += 1
            await asyncio.sleep(self.DRIP_S)
        call.client.write(data[at:])
        await call.client.drain()


def _whole(data: bytes, call: Call) -> int:
    """How many bytes are whole frames, which are noted."""
    at = 0
    while (head := head_of(data[at : at + 14])) is not None and at + sum(head) <= len(data):
        start, at = at + head[0], at + sum(head)
        if not call.spoilt and data[start - head[0]] == FINAL | TEXT:
            call.passed.append(data[start:at])
    return at


def _heard(call: Call, data: bytes) -> bytes:
    """Look for a Close frame, and return what is not a whole frame yet."""
    while (head := head_of(data)) is not None and sum(head) <= len(data):
        if data[0] == FINAL | CLOSE and head[1] >= 2:
            mask = data[head[0] - 4 : head[0]]
            code = bytes(byte ^ key for byte, key in zip(data[head[0] : head[0] + 2], mask, strict=False))
            call.closed_with = int.from_bytes(code, "big")
        data = data[sum(head) :]
    return data


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()


async def _both(*ways: Coroutine[Any, Any, None]) -> None:
    """Until one of them ends."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _now(function: Any, *arguments: Any) -> Any:
    return function(*arguments)
