"""Rows of the fault table in which unauthenticated peers connect to the relay's sockets."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from relay.delivery import link_codec
from tests.chaos.processes import SECRET, footprint
from tests.chaos.rig import FLOOD, Rig, publisher, stream
from tests.chaos.rows import Row
from tests.support.polling import until

NOBODY = 65534
KEY = f"usdm:{FLOOD}"
CHALLENGE_BYTES = 5 + link_codec.NONCE_BYTES
HELLO = link_codec.Hello(stream=KEY, epoch=1 << 60, tip="")


def stolen(nonce: bytes) -> bytes:
    """What a stream actor answered to somebody else's challenge."""
    return link_codec.hello(HELLO, SECRET, bytes(len(nonce)))


# What an unauthenticated peer answers to the challenge.
UNAUTHENTICATED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda nonce: b"",
    "a wrong proof": lambda nonce: link_codec.hello(HELLO, b"a guess", nonce),
    "a proof for another challenge": stolen,
    "4 GB to come": lambda nonce: b"\xff\xff\xff\xff" + bytes([link_codec.HELLO]) + b"x" * 8192,
    "2 GB to come, one byte of it": lambda nonce: (2**31).to_bytes(4, "little") + b"\x01",
    "a batch": lambda nonce: link_codec.batches(1, 0, b""),
    "an acknowledgement": lambda nonce: link_codec.ack(1, 0, [(1 << 40, 0, 0)]),
    "a request over HTTP": lambda nonce: b"GET / HTTP/1.1\r\nHost: sluice\r\n\r\n",
    "noise": lambda nonce: bytes(range(256)) * 64,
}


def connected(address: str) -> socket.socket:
    if address.startswith("/"):
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(address)
        except OSError:
            peer.close()
            raise
        return peer
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


def received_by(peer: socket.socket, limit_s: float = 10.0) -> tuple[bytes, float]:
    """All that it receives before its connection ends, and how long that took."""
    began, data = time.monotonic(), b""
    peer.settimeout(limit_s)
    with suppress(ConnectionResetError, BrokenPipeError):
        while more := peer.recv(1 << 16):
            data += more
    return data, time.monotonic() - began


def answered(address: str, what: Callable[[bytes], bytes]) -> tuple[bytes, float]:
    with connected(address) as peer:
        challenge = peer.recv(CHALLENGE_BYTES, socket.MSG_WAITALL)
        assert len(challenge) == CHALLENGE_BYTES
        with suppress(ConnectionResetError, BrokenPipeError):
            peer.sendall(what(challenge[5:]))
        return received_by(peer)


def drip(address: str) -> tuple[bytes, float]:
    """A true hello, a byte at a time: slower than a second."""
    with connected(address) as peer:
        challenge = peer.recv(CHALLENGE_BYTES, socket.MSG_WAITALL)
        began = time.monotonic()
        with suppress(ConnectionResetError, BrokenPipeError):
            for byte in link_codec.hello(HELLO, SECRET, challenge[5:])[:-1]:
                peer.sendall(bytes([byte]))
                time.sleep(0.05)
        data, _ = received_by(peer)
        return data, time.monotonic() - began


@contextmanager
def as_nobody() -> Iterator[None]:
    """The kernel notes the effective user at the moment of connecting."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def state(rig: Rig) -> list[tuple[object, ...]]:
    """What no unauthenticated peer may change."""
    streams = [
        (key, one.epoch, one.pid, one.publisher, one.failovers, one.lost) for key, one in rig.stats().items()
    ]
    publishers = [(name, one.pid, sorted(one.streams)) for name, one in rig.publishers().items()]
    return [*sorted(streams), *sorted(publishers)]


@pytest.mark.chaos(
    row=40,
    ci=True,
    fault="unauthenticated peers at the publishers' sockets",
    figure="closed within 1 s, no byte of data",
)
def test_row_40_unauthenticated_peers(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(100)
    before = state(rig)
    sockets = [address for one in rig.publishers().values() for address in (one.unix_path, one.tcp_address)]
    memory = {name: footprint(one.pid).rss_bytes for name, one in rig.publishers().items()}
    slowest_s = 0.0
    for socket_path in sockets:
        for name, what in UNAUTHENTICATED.items():
            received, took_s = answered(socket_path, what)
            assert received == b"", f"{name} at {socket_path} received {received[:100]!r}"
            slowest_s = max(slowest_s, took_s)
        received, took_s = drip(socket_path)
        assert received == b""
        slowest_s = max(slowest_s, took_s)
    row.injected("the peers were rejected", len(sockets) == 4)
    row.measured("closed after", slowest_s, "s", 1.0)
    grown = max(footprint(one.pid).rss_bytes - memory[name] for name, one in rig.publishers().items())
    row.measured("memory", grown / 1e6, "MB more", 4.0)
    assert state(rig) == before
    rig.flows(200)
    rig.judge()


@pytest.mark.needs("root")
@pytest.mark.chaos(row=40, fault="another user at the unix sockets", figure="closed at once, no byte sent")
def test_row_40b_another_user(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(100)
    before = state(rig)
    socket_path = Path(next(iter(rig.publishers().values())).unix_path)
    with as_nobody(), pytest.raises(PermissionError):
        connected(str(socket_path))
    row.injected("another user was kept out by the folder", True)
    # As if the folder had been opened by mistake.
    for path in (*list(socket_path.parents)[:1], socket_path):
        path.chmod(0o777)
    with as_nobody():
        peer = connected(str(socket_path))
    with peer:
        received, took_s = received_by(peer)
    assert received == b""
    row.measured("closed after", took_s, "s", 1.0)
    socket_path.parent.chmod(0o700)
    assert state(rig) == before
    rig.flows(200)
    rig.judge()


class Crowd:
    """Many unauthenticated peers that send nothing, and come again as soon as they are rejected."""

    def __init__(self, address: str, size: int) -> None:
        self.rejected = 0
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._linger, daemon=True) for _ in range(size)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(5)

    def _linger(self) -> None:
        while not self._over.wait(0.02):
            with suppress(OSError), connected(self._address) as peer:
                received_by(peer, 3.0)
            self.rejected += 1


@pytest.mark.chaos(
    row=40,
    fault="a crowd of unauthenticated peers at the TCP ports",
    figure="streams of the node link in spite of it",
)
def test_row_40c_crowd(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(100)
    with ExitStack() as crowds:
        found = [crowds.enter_context(Crowd(one.tcp_address, 200)) for one in rig.publishers().values()]
        until(lambda: all(crowd.rejected > 400 for crowd in found), "the crowd is there", 30.0)
        row.injected("the peers were rejected", True)
        rig.kill(stream(FLOOD))
        row.measured("a restarted stream delivers after", rig.flows(1, [KEY]), "s", 5.0)
        rig.kill(publisher("p0"))
        row.measured("streams of a killed publisher deliver after", rig.flows(1), "s", 5.0)
        rig.flows(100)
    rig.flows(100)
    rig.judge()
