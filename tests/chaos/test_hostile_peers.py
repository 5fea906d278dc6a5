"""The peers that rows break things with: what passes must be unchanged, and what they note must be so."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

from tests.chaos import frame_proxy
from tests.chaos.certificates import Authority, Impostor
from tests.chaos.frame_proxy import BINARY, FINAL, PING, FrameProxy, frame, head_of
from tests.chaos.name_server import answer
from tests.support.polling import until

MESSAGES = [b"a", b"b" * 200, b"c" * 70_000]
# Asks for the IPv4 address of a.b.
QUESTION = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01"


@contextmanager
def through(*, tls: Impostor | None = None) -> Iterator[FrameProxy]:
    """A proxy to a server that sends everything back."""

    def echo(there: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            for message in there:
                there.send(message)

    with serve(echo, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with FrameProxy(server.socket.getsockname()[1], tls.context if tls else None) as proxy:
            yield proxy
        server.shutdown()
        thread.join(5)


def called(proxy: FrameProxy, **more: object) -> ClientConnection:
    return connect(proxy.url, compression=None, open_timeout=5, close_timeout=0.2, **more)


@given(st.lists(st.sampled_from([0, 1, 125, 126, 65_535, 65_536]), max_size=5))
def test_heads_of_frames_tell_where_they_end(sizes: list[int]) -> None:
    data = b"".join(frame(bytes(size), BINARY) for size in sizes)
    for size in sizes:
        head = head_of(data)
        assert head is not None and head[1] == size
        assert head_of(data[: head[0] - 1]) is None
        data = data[sum(head) :]
    assert not data


def test_frames_pass_unchanged_and_insertions_stand_between_them() -> None:
    with through() as proxy, called(proxy) as client:
        for message in MESSAGES:
            client.send(message, text=True)
            assert client.recv(5, decode=False) == message
        (call,) = proxy.insert(frame(b"inserted"))
        assert client.recv(5) == "inserted"
        client.send(b"d", text=True)
        assert client.recv(5) == "d"
        assert call.passed == [*MESSAGES, b"d"]
        client.close(1008)
        until(lambda: call.left_at, "it is seen to leave", 5.0)
        assert call.closed_with == 1008


def test_a_spoilt_connection_that_is_deaf_stays_open_when_the_client_has_left() -> None:
    with through() as proxy, called(proxy):
        (call,) = proxy.insert(frame(b"x", PING, flags=0), spoils=True, deaf=True)
        until(lambda: call.closed_with, "its Close frame arrives", 5.0)
        assert call.closed_with == 1002
        assert not call.client.transport.is_closing()


def test_a_dripping_handshake_takes_longer_than_anybody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_proxy.FrameProxy, "DRIP_S", 0.05)
    with through() as proxy:
        proxy.drips = True
        with pytest.raises(TimeoutError):
            connect(proxy.url, open_timeout=0.3)
        proxy.drips = False
        with called(proxy) as client:
            assert proxy.drip() and proxy.cut()
            with pytest.raises(ConnectionClosed):
                client.recv(5)


def test_a_claimed_extension_spoils_the_handshake() -> None:
    with through() as proxy:
        proxy.extra_header = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        with pytest.raises(InvalidHandshake):
            called(proxy)
        assert proxy.calls[0].spoilt


def test_a_certificate_is_good_until_another_one_is_shown(tmp_path: Path) -> None:
    authority = Authority()
    trusting = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    impostor = Impostor(authority.context("127.0.0.1", tmp_path))
    with through(tls=impostor) as proxy:
        with called(proxy, ssl=trusting) as client:
            client.send("a")
            assert client.recv(5) == "a"
        yesterday = datetime.now(UTC) - timedelta(days=1)
        impostor.shown = authority.context("127.0.0.1", tmp_path, until=yesterday)
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            called(proxy, ssl=trusting)
        assert (proxy.accepted, impostor.hellos) == (1, 2)


def test_a_name_server_tells_an_address_or_that_it_failed() -> None:
    told = answer(QUESTION, "127.0.0.2")
    assert told[:8] == b"\x12\x34\x81\x80\0\x01\0\x01"
    assert told.endswith(socket.inet_aton("127.0.0.2"))
    assert answer(QUESTION, None) == b"\x12\x34\x81\x82\0\x01\0\0\0\0\0\0" + QUESTION[12:]
    for_ipv6 = QUESTION[:-4] + b"\0\x1c\0\x01"
    assert answer(for_ipv6, "127.0.0.2")[:8] == b"\x12\x34\x81\x80\0\x01\0\0"


def test_a_frame_may_lie_about_its_length() -> None:
    assert frame(b"ab", length=1 << 62)[:10] == bytes([FINAL | 1, 127]) + (1 << 62).to_bytes(8, "big")
