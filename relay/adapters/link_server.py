"""The publisher's end of the link: listening sockets, authentication, and one protocol object for each peer.

A peer has less than a second and MAX_HELLO_BYTES to prove that it knows the cluster's secret; until then all
it can cause is the end of its own connection. A link holds no records: what arrives goes to the listener at
once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import Protocol, cast

from relay.delivery import link_codec
from relay.errors import BusError, DamagedBatchError, LinkError
from relay.model.record_batch import RecordBatch

_log = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 0.9
# More unauthenticated peers than this at one of the two sockets are rejected at once.
MAX_UNAUTHENTICATED = 128
# With so much unread by a stream actor its process is stopped; it still holds its records.
MAX_UNSENT_BYTES = 1024 * 1024
# sockaddr_un holds 108 bytes with the final zero (man 7 unix).
MAX_UNIX_PATH_BYTES = 107
_UCRED = Struct("3i")


class LinkServerListener(Protocol):
    """Owner of the links of a publisher; called from the event loop, must not block.

    All but `on_closed` and `on_rejected` may raise LinkError, which ends the link. `on_closed` is called once
    for every link of `on_stream` or `on_peer`.
    """

    def on_stream(self, link: LinkServerConnection, hello: link_codec.Hello) -> None: ...

    def on_peer(self, link: LinkServerConnection, hello: link_codec.Hello) -> None: ...

    def on_status(self, link: LinkServerConnection, status: bytes) -> None: ...

    def on_batches(
        self, link: LinkServerConnection, session: int, skip: int, batches: list[RecordBatch]
    ) -> None: ...

    def on_closed(self, link: LinkServerConnection, reason: str) -> None: ...

    def on_rejected(self, reason: str) -> None: ...


class LinkServerConnection(asyncio.Protocol):
    """One connection of a stream actor, authenticated or not yet."""

    def __init__(
        self, owner: LinkServerListener, secret: bytes, unauthenticated: set[LinkServerConnection]
    ) -> None:
        self._listener = owner
        self._secret = secret
        self._unauthenticated = unauthenticated
        self._nonce = secrets.token_bytes(link_codec.NONCE_BYTES)
        self._decoder = link_codec.MessageDecoder(link_codec.MAX_HELLO_BYTES)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_authenticated = False
        self._reason = "the stream actor closed the link"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        if len(self._unauthenticated) >= MAX_UNAUTHENTICATED or not _is_ours(self._transport):
            self._listener.on_rejected("too many unproved peers, or a peer of another user")
            self._transport.abort()
            return
        self._unauthenticated.add(self)
        self._timer = asyncio.get_running_loop().call_later(HELLO_TIMEOUT_S, self._hello_is_late)
        self.send(link_codec.frame(link_codec.CHALLENGE, self._nonce))

    def _hello_is_late(self) -> None:
        self._listener.on_rejected(f"no hello within {HELLO_TIMEOUT_S:g} s")
        self.close("no hello")

    def data_received(self, data: bytes) -> None:
        try:
            for kind, body in self._decoder.feed(data):
                self._on_message(kind, body)
        except (LinkError, DamagedBatchError) as error:
            if not self._is_authenticated:
                self._listener.on_rejected(str(error))
            self.close(str(error))

    def _on_message(self, kind: int, body: bytes) -> None:
        if self.closing:
            return
        if not self._is_authenticated:
            self._authenticate(kind, body)
        elif kind == link_codec.BATCHES:
            self._listener.on_batches(self, *link_codec.read_batches(body))
        elif kind == link_codec.STATUS:
            self._listener.on_status(self, body)
        elif kind == link_codec.BYE:
            self.close("handed over")
        else:
            raise LinkError(f"the stream actor sent a message of unknown type {kind}")

    def _authenticate(self, kind: int, body: bytes) -> None:
        if kind not in (link_codec.HELLO, link_codec.JOIN):
            raise LinkError(f"the peer began with a message of type {kind}")
        hello = link_codec.read_hello(body, self._secret, self._nonce)
        self._leave_unauthenticated()
        self._is_authenticated = True
        if kind == link_codec.JOIN:
            self._listener.on_peer(self, hello)
            return
        self._decoder.limit_bytes = link_codec.MAX_MESSAGE_BYTES
        self._listener.on_stream(self, hello)

    def _leave_unauthenticated(self) -> None:
        self._unauthenticated.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def send(self, data: bytes) -> None:
        """Does nothing on a closing link."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.close("the stream actor takes no acknowledgements")

    def close(self, reason: str) -> None:
        """What was sent before still arrives, if the peer reads it."""
        if self._transport is not None and not self._transport.is_closing():
            self._reason = reason
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_unauthenticated()
        if self._is_authenticated:
            self._listener.on_closed(self, self._reason if exc is None else str(exc))


class Listeners:
    """A unix socket for stream actors of the same node and a TCP port for the others."""

    def __init__(self, owner: LinkServerListener, secret: bytes) -> None:
        self.unix_path = ""
        self.tcp_address = ""
        self._owner = owner
        self._secret = secret
        # Counted apart, so that peers that fill the TCP port cannot keep this node's streams from the unix
        # socket.
        self._unix_unauthenticated: set[LinkServerConnection] = set()
        self._tcp_unauthenticated: set[LinkServerConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._inode = 0

    async def open(self, name: str, directory: Path, address: str) -> None:
        """Raises BusError if neither can be opened safely."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._link(self._tcp_unauthenticated), address, 0)
            path = _socket_path(directory, name)
            if path is not None:
                unix_server = await loop.create_unix_server(self._link(self._unix_unauthenticated), str(path))
                self._servers.append(unix_server)
                path.chmod(0o600)
                self.unix_path = str(path)
                self._inode = path.stat().st_ino
        except OSError as error:
            raise BusError(
                f"publisher {name} cannot listen at {address} and in {directory}: {error}"
            ) from error
        self._servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        self.tcp_address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _link(self, unauthenticated: set[LinkServerConnection]) -> Callable[[], LinkServerConnection]:
        return lambda: LinkServerConnection(self._owner, self._secret, unauthenticated)

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for peer in (*self._unix_unauthenticated, *self._tcp_unauthenticated):
            peer.close("the publisher ends")
        path = Path(self.unix_path)
        with contextlib.suppress(OSError):
            # A successor may listen at this path by now.
            if path.lstat().st_ino == self._inode:
                path.unlink()


def _socket_path(directory: Path, name: str) -> Path | None:
    """None where the path is too long for a socket; raises OSError if others could reach it."""
    path = directory / f"{name}.sock"
    if len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES:
        _log.warning("%s is too long for a unix socket; streams of this node use TCP", path)
        return None
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} must belong to this user alone, mode 0700")
    if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
        raise FileExistsError(f"{path} is no socket")
    path.unlink(missing_ok=True)
    return path


def _is_ours(transport: asyncio.Transport) -> bool:
    """A unix peer must run as the same user; a TCP peer is authenticated by its proof alone."""
    peer = transport.get_extra_info("socket")
    if peer.family != socket.AF_UNIX:
        return True
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return bool(_UCRED.unpack(credentials)[1] == os.getuid())
