"""Which peers are rejected at a publisher's sockets before they can send anything, and who is unaffected."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.adapters.link_server import MAX_UNAUTHENTICATED, LinkServerConnection, Listeners
from relay.delivery import link_codec
from tests.support.link_client import LinkClient

NOBODY = 65534


class Owner:
    def __init__(self) -> None:
        self.arrivals: list[link_codec.Hello] = []
        self.refusals: list[str] = []
        self._changed = asyncio.Event()

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not met():
                self._changed.clear()
                await self._changed.wait()

    def on_stream(self, link: LinkServerConnection, hello: link_codec.Hello) -> None:
        self.arrivals.append(hello)
        self._changed.set()

    def on_closed(self, *_: object) -> None: ...

    def on_rejected(self, reason: str) -> None:
        self.refusals.append(reason)
        self._changed.set()


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp") as name:
        yield Path(name)


def connect_as_nobody(path: str) -> socket.socket:
    """The kernel notes the effective user at the moment of connecting."""
    peer = socket.socket(socket.AF_UNIX)
    os.seteuid(NOBODY)
    try:
        peer.connect(path)
    except OSError:
        peer.close()
        raise
    finally:
        os.seteuid(0)
    return peer


def open_the_way_in(path: Path) -> None:
    path.parent.chmod(0o755)
    path.chmod(0o666)


async def heard_by(peer: socket.socket) -> bytes:
    """All that the peer receives before the end; an abort sends nothing."""
    peer.setblocking(False)
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 100), 5)
    except ConnectionResetError:
        return b""
    finally:
        peer.close()


@pytest.mark.needs("root")
def test_another_user_is_kept_out_by_the_folder_and_by_the_socket_itself(directory: Path) -> None:
    async def test() -> None:
        owner = Owner()
        listeners = Listeners(owner, b"secret")
        await listeners.open("p0", directory, "127.0.0.1")
        try:
            with pytest.raises(PermissionError):
                connect_as_nobody(listeners.unix_path)
            open_the_way_in(Path(listeners.unix_path))
            assert await heard_by(connect_as_nobody(listeners.unix_path)) == b""
            assert owner.refusals == ["too many unproved peers, or a peer of another user"]
            assert owner.arrivals == []
        finally:
            listeners.close()
            # The transports' last callbacks are due in the next turn of the loop.
            await asyncio.sleep(0)

    asyncio.run(test())


def test_a_crowd_at_the_port_keeps_nobody_from_the_unix_socket(directory: Path) -> None:
    async def test() -> None:
        owner = Owner()
        listeners = Listeners(owner, b"secret")
        await listeners.open("p0", directory, "127.0.0.1")
        host, _, port = listeners.tcp_address.rpartition(":")
        ours = link_codec.Hello(stream="usdm:btcusdt@trade", epoch=1, tip="")
        crowd = [(await asyncio.open_connection(host, int(port)))[1] for _ in range(MAX_UNAUTHENTICATED + 1)]
        try:
            await owner.until(
                lambda: owner.refusals == ["too many unproved peers, or a peer of another user"]
            )
            client = LinkClient(ours, b"secret")
            await asyncio.get_running_loop().create_unix_connection(lambda: client, listeners.unix_path)
            await owner.until(lambda: owner.arrivals == [ours])
            assert len(owner.refusals) == 1, "the crowd is still there"
            client.close()
        finally:
            for peer in crowd:
                peer.transport.abort()
            listeners.close()
            await asyncio.sleep(0)

    asyncio.run(test())
