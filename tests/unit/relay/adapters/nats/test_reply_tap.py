"""What NATS says, cut into messages however the bytes come: answers here, everything else to nats-py."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.adapters.nats.reply_tap import ReplyTap

OURS, OTHERS = b"7", b"12"


class Behind(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.told: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


class Tapped:
    def __init__(self) -> None:
        self.behind = Behind()
        self.replies: list[tuple[bytes, bytes, bytes | None]] = []
        self.pongs = 0
        self.tap = ReplyTap(self.behind, OURS, lambda *reply: self.replies.append(reply), self._pong)

    def _pong(self) -> None:
        self.pongs += 1

    def hear(self, *pieces: bytes) -> Tapped:
        for piece in pieces:
            self.tap.data_received(piece)
        return self


def message(body: bytes, *, sid: bytes = OURS) -> bytes:
    return b"MSG in.3.14 %b %d\r\n%b\r\n" % (sid, len(body), body)


def with_headers(block: bytes, body: bytes, sid: bytes = OURS) -> bytes:
    return b"HMSG in.3.14 %b %d %d\r\n%b%b\r\n" % (sid, len(block), len(block) + len(body), block, body)


def test_an_answer_goes_to_its_hook_with_subject_and_body() -> None:
    heard = Tapped().hear(message(b'{"seq":1}'))
    assert heard.replies == [(b"in.3.14", b'{"seq":1}', None)]
    assert heard.behind.data == b""


def test_an_answer_with_headers_brings_them_along() -> None:
    block = b"NATS/1.0 503\r\n\r\n"
    assert Tapped().hear(with_headers(block, b"")).replies == [(b"in.3.14", b"", block)]


def test_a_pong_is_told_and_kept_from_nats_py() -> None:
    heard = Tapped().hear(b"PONG\r\nPONG\r\n")
    assert (heard.pongs, heard.behind.data) == (2, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"PING\r\n", b"+OK\r\n", b"-ERR 'Permissions Violation'\r\n", b'INFO {"a":1}\r\n',
        message(b"x" * 10, sid=OTHERS), with_headers(b"NATS/1.0\r\n\r\n", b"y", OTHERS),
        b"MSG\r\n", b"MSG a 7 x\r\n", b"HMSG a 7 1 -2\r\n", b"nonsense\r\n", b"\r\n",
    ],
)  # fmt: skip
def test_everything_else_reaches_nats_py_as_it_came(data: bytes) -> None:
    heard = Tapped().hear(data, message(b"ours"))
    assert heard.behind.data == data
    assert len(heard.replies) == 1


def test_a_body_may_look_like_anything() -> None:
    body = b"PONG\r\nMSG a 7 3\r\n"
    heard = Tapped().hear(message(body), message(body, sid=OTHERS))
    assert heard.replies == [(b"in.3.14", body, None)]
    assert (heard.pongs, heard.behind.data) == (0, message(body, sid=OTHERS))


def test_the_connections_own_news_go_through() -> None:
    heard = Tapped()
    heard.tap.pause_writing()
    heard.tap.resume_writing()
    heard.tap.eof_received()
    heard.tap.connection_lost(None)
    assert heard.behind.told == ["pause", "resume", "eof", "lost"]


parts = st.one_of(
    st.sampled_from([b"PONG\r\n", b"PING\r\n", b"+OK\r\n"]),
    st.binary(max_size=300).map(message),
    st.binary(max_size=300).map(lambda body: message(body, sid=OTHERS)),
    st.binary(max_size=50).map(lambda body: with_headers(b"NATS/1.0\r\na: b\r\n\r\n", body)),
)


@given(st.lists(parts, max_size=20), st.lists(st.integers(1, 60), min_size=1))
def test_the_cuts_of_reading_change_nothing(said: list[bytes], cuts: list[int]) -> None:
    data = b"".join(said)
    whole, cut = Tapped().hear(data), Tapped()
    at = 0
    while at < len(data):
        size = cuts[at % len(cuts)]
        cut.hear(data[at : at + size])
        at += size
    assert (cut.replies, cut.pongs, cut.behind.data) == (whole.replies, whole.pongs, whole.behind.data)
    assert whole.pongs == said.count(b"PONG\r\n")
