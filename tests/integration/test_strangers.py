"""Who is turned away at a publisher's unix socket before it can say anything."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay import wire
from relay.publish_link import Listeners, PublishLink

NOBODY = 65534


class Owner:
    def __init__(self) -> None:
        self.arrivals: list[wire.Hello] = []
        self.refusals: list[str] = []

    def arrived(self, link: PublishLink, hello: wire.Hello) -> None:
        self.arrivals.append(hello)

    def took(self, *_: object) -> None: ...

    def left(self, *_: object) -> None: ...

    def turned_away(self, reason: str) -> None:
        self.refusals.append(reason)


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
    """All that the peer is told before the end; an abort is no word."""
    peer.setblocking(False)
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 100), 5)
    except ConnectionResetError:
        return b""
    finally:
        peer.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can try as another user")
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
