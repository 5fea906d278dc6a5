"""Bytes leave at once where they can, and in order whichever way they go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from relay.adapters.direct_writer import DirectWriter


def on_a_pair(test: Callable[[asyncio.Transport, socket.socket], Coroutine[Any, Any, None]]) -> None:
    """`test` gets a transport of a uvloop and its peer, a plain socket."""

    async def main() -> None:
        mine, peer = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=mine)
        peer.setblocking(False)
        with peer:
            await test(transport, peer)
            transport.abort()
            await asyncio.sleep(0)

    uvloop.run(main())


async def read(peer: socket.socket, size: int) -> bytes:
    found = b""
    async with asyncio.timeout(10):
        while len(found) < size:
            found += await asyncio.get_running_loop().sock_recv(peer, 1 << 20)
    return found


def test_the_peer_has_it_before_the_turn_is_over() -> None:
    async def test(transport: asyncio.Transport, peer: socket.socket) -> None:
        DirectWriter(transport).write(b"now")
        assert peer.recv(10) == b"now"

    on_a_pair(test)


@pytest.mark.parametrize("size", [1, 1000, 300_000])
def test_what_the_kernel_has_no_room_for_follows_in_order(size: int) -> None:
    async def test(transport: asyncio.Transport, peer: socket.socket) -> None:
        writer = DirectWriter(transport)
        written = bytearray()
        for number in range(max(20, 2_000_000 // size) if size > 1 else 20):
            part = bytes([number % 251]) * size
            written += part
            writer.write(part)
        assert (transport.get_write_buffer_size() > 0) is (size > 1)
        assert await read(peer, len(written)) == written
        writer.write(b"end")
        assert await read(peer, 3) == b"end"

    on_a_pair(test)


def test_what_the_transport_holds_already_goes_first() -> None:
    async def test(transport: asyncio.Transport, peer: socket.socket) -> None:
        transport.write(b"first ")
        DirectWriter(transport).write(b"second")
        assert await read(peer, 12) == b"first second"

    on_a_pair(test)


def test_a_peer_that_has_gone_is_the_transports_business() -> None:
    class Ended(asyncio.Protocol):
        def __init__(self) -> None:
            self.lost = asyncio.Event()

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set()

    async def test(transport: asyncio.Transport, peer: socket.socket) -> None:
        ended = Ended()
        transport.set_protocol(ended)
        peer.close()
        DirectWriter(transport).write(b"x")
        async with asyncio.timeout(10):
            await ended.lost.wait()

    on_a_pair(test)
