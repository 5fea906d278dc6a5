"""Bytes of a server in, payloads out, without a socket."""

from __future__ import annotations

import itertools
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from relay.adapters.websocket_frames import (
    MAX_FRAME_BYTES,
    MAX_RESPONSE_BYTES,
    SLOW_FRAMES_PER_S,
    FeedProtocol,
)
from relay.errors import HandshakeRefusedError

NOW = 10.0


def shaken_hands() -> tuple[FeedProtocol, bytes]:
    """A client that has sent its request, and the bytes of the server's response."""
    protocol = FeedProtocol("ws://exchange.test/ws/x")
    protocol.send_handshake()
    server = ServerProtocol()
    server.receive_data(b"".join(protocol.data_to_send()))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    return protocol, b"".join(server.data_to_send())


def opened() -> FeedProtocol:
    protocol, response = shaken_hands()
    assert protocol.receive(response, NOW) == []
    assert protocol.is_open and protocol.accepted
    return protocol


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=False)


messages = st.one_of(
    st.tuples(st.just("text"), st.sampled_from([0, 1, 125, 126, 127, 300, 65535, 65536])),
    st.tuples(st.just("fragments"), st.integers(1, 4)),
    st.tuples(st.just("ping"), st.integers(0, 125)),
)


def on_the_wire(kind: str, size: int, number: int) -> tuple[bytes, list[bytes]]:
    """What a server sends for one message, and the payload that must come of it."""
    if kind == "ping":
        return frame(b"p" * size, Opcode.PING), []
    if kind == "text":
        payload = (b"%d " % number).ljust(size, b"x")[:size]
        return frame(payload), [payload]
    parts = [b"%d/%d " % (number, part) for part in range(size)]
    frames = [
        frame(each, Opcode.CONT if part else Opcode.TEXT, fin=part == size - 1)
        for part, each in enumerate(parts)
    ]
    return b"".join(frames), [b"".join(parts)]


@settings(max_examples=150, deadline=None)
@given(st.lists(messages, max_size=12), st.data())
def test_however_the_bytes_are_cut_the_messages_are_the_same(
    script: list[tuple[str, int]], data: st.DataObject
) -> None:
    protocol, wire = shaken_hands()
    expected = []
    for number, (kind, size) in enumerate(script):
        sent, payloads = on_the_wire(kind, size, number)
        wire += sent
        expected += payloads
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=20)))
    found = []
    for start, end in itertools.pairwise([0, *cuts, len(wire)]):
        found += protocol.receive(wire[start:end], NOW)
    assert found == expected
    assert protocol.is_open and not protocol.failed


def test_a_ping_is_answered_and_only_then_is_there_something_to_send() -> None:
    protocol = opened()
    protocol.responded = False
    assert protocol.receive(frame(b"event"), NOW) == [b"event"]
    assert not protocol.responded
    assert protocol.receive(frame(b"17", Opcode.PING), NOW) == []
    assert protocol.responded
    (pong,) = protocol.data_to_send()
    assert pong[0] == 0x8A
    assert protocol.data_to_send() == []


def test_a_frame_that_is_too_large_ends_it_before_it_has_come() -> None:
    protocol = opened()
    head = b"\x81\x7f" + (MAX_FRAME_BYTES + 1).to_bytes(8, "big")
    assert protocol.receive(frame(b"good") + head, NOW) == [b"good"]
    assert protocol.failed and "broke the protocol" in str(protocol.failure)
    assert protocol.receive(frame(b"later"), NOW) == []


def test_a_masked_frame_of_a_server_breaks_the_protocol() -> None:
    protocol = opened()
    assert protocol.receive(Frame(Opcode.TEXT, b"x").serialize(mask=True), NOW) == []
    assert "broke the protocol" in str(protocol.failure)


def test_a_flood_of_small_control_frames_ends_it_with_a_close_frame() -> None:
    protocol = opened()
    flood = frame(b"", Opcode.PING) * SLOW_FRAMES_PER_S
    assert protocol.receive(frame(b"good") + flood + frame(b"later"), NOW) == [b"good"]
    assert protocol.failed and "pings and fragments" in str(protocol.failure)
    assert protocol.data_to_send()[-1][0] == 0x88


def test_control_frames_within_the_limit_of_each_second_are_answered() -> None:
    protocol = opened()
    for second in range(1, 4):
        protocol.receive(frame(b"", Opcode.PING) * SLOW_FRAMES_PER_S, NOW + second)
    assert protocol.is_open


def test_a_close_frame_is_the_reason() -> None:
    protocol = opened()
    assert protocol.receive(frame((1001).to_bytes(2, "big") + b"bye", Opcode.CLOSE), NOW) == []
    assert protocol.failed and "1001" in str(protocol.failure)


def test_a_response_with_its_first_events_and_its_end_was_accepted_all_the_same() -> None:
    protocol, response = shaken_hands()
    closing = frame((1000).to_bytes(2, "big"), Opcode.CLOSE)
    assert protocol.receive(response + frame(b"first") + closing, NOW) == [b"first"]
    assert protocol.accepted and not protocol.is_open


def test_a_refusal_names_its_status_and_when_to_come_back() -> None:
    protocol = FeedProtocol("ws://exchange.test/ws/x")
    protocol.send_handshake()
    protocol.receive(b"HTTP/1.1 429 Too Many\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n", NOW)
    protocol.receive_eof()
    failure = protocol.failure
    assert protocol.failed and not protocol.accepted
    assert isinstance(failure, HandshakeRefusedError)
    assert str(HTTPStatus.TOO_MANY_REQUESTS.value) in str(failure)
    assert failure.retry_after_s == 17


def test_a_response_without_an_end_is_not_collected_for_ever() -> None:
    protocol = FeedProtocol("ws://exchange.test/ws/x")
    protocol.send_handshake()
    protocol.receive(b"HTTP/1.1 101 x\r\n" + b"a: b\r\n" * MAX_RESPONSE_BYTES, NOW)
    assert protocol.failed


@pytest.mark.parametrize("code", [1000, 1008])
def test_after_its_own_close_frame_it_reads_nothing_more(code: int) -> None:
    protocol = opened()
    protocol.data_to_send()
    protocol.send_close(code)
    protocol.send_close(code)
    (closing,) = protocol.data_to_send()
    assert closing[0] == 0x88
    assert protocol.receive(frame(b"later"), NOW) == []


def test_an_end_without_a_close_frame_says_so() -> None:
    protocol = opened()
    assert "without a close frame" in str(protocol.failure)
    protocol.receive_eof()
    assert not protocol.is_open
    assert "unexpected end of stream" in str(protocol.failure)
