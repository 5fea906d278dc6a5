"""Rows of the fault table in which the exchange, or somebody in its place, breaks the protocol."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.chaos.frame_proxy import (
    BINARY,
    CLOSE,
    COMPRESSED,
    CONTINUATION,
    FINAL,
    PING,
    TEXT,
    Call,
    FrameProxy,
    frame,
)
from tests.chaos.processes import footprint
from tests.chaos.rig import FLOOD, Rig, stream
from tests.chaos.rows import Row
from tests.support.polling import until

KEY = f"usdm:{FLOOD}"
MIB = 1024 * 1024
NO_HEALING = {"exchange": {"heal": False}}
PROTOCOL_ERROR, NOT_TEXT, FLOODS, TOO_BIG = 1002, 1007, 1008, 1009


def trade(t: bytes, price: bytes = b"1.0", symbol: bytes = b"BTCUSDT", kind: bytes = b"trade") -> bytes:
    """An event of the stream, but for what is wrong with it."""
    return (
        b'{"e":"%b","E":1,"T":1,"s":"%b","t":%b,"p":"%b","q":"0.012","X":"MARKET","m":false}'
        % (kind, symbol, t, price)
    )  # fmt: skip


PAYLOADS = {
    "nothing": b"",
    "cut short": trade(b"7")[:-9],
    "no object": b"null",
    "deep": b"[" * 100_000,
    "two objects": trade(b"7") * 2,
    "a byte order mark": b"\xef\xbb\xbf" + trade(b"7"),
    "a byte that UTF-8 has not": trade(b"7", b"1.\xff"),
    "an overlong byte": trade(b"7", b"1.\xc0\xb0"),
    "half a surrogate pair": trade(b"7", b"1.\xed\xa0\x80"),
    "a character cut in half": trade(b"7", b"1.\xe2\x82"),
    "a NUL": trade(b"7", b"1.\x00"),
    "no id": trade(b"null"),
    "an id as text": trade(b'"7"'),
    "a fractional id": trade(b"7.5"),
    "a negative id": trade(b"-7"),
    "an id beyond 64 bits": trade(b"18446744073709551617"),
    "a truth for an id": trade(b"true"),
    "another symbol": trade(b"7", symbol=b"ETHUSDT"),
    "another kind": trade(b"7", kind=b"aggTrade"),
    "an envelope": b'{"stream":"btcusdt@trade","data":%b}' % trade(b"7"),
}
FRAMES = {
    "reserved bit 1": (frame(b"x", flags=FINAL | 0x40), PROTOCOL_ERROR),
    "reserved bit 2": (frame(b"x", flags=FINAL | 0x20), PROTOCOL_ERROR),
    "reserved bit 3": (frame(b"x", flags=FINAL | 0x10), PROTOCOL_ERROR),
    "a data opcode nobody knows": (frame(b"x", 0x3), PROTOCOL_ERROR),
    "a control opcode nobody knows": (frame(b"x", 0xB), PROTOCOL_ERROR),
    "a lone continuation": (frame(b"x", CONTINUATION), PROTOCOL_ERROR),
    "a message inside another": (frame(b"x", flags=0) + frame(b"y"), PROTOCOL_ERROR),
    "a long control frame": (frame(bytes(126), PING), PROTOCOL_ERROR),
    "a control frame in parts": (frame(b"x", PING, flags=0), PROTOCOL_ERROR),
    "a mask": (b"\x81\x81\x01\x02\x03\x04x", PROTOCOL_ERROR),
    "a Close frame of one byte": (frame(b"x", CLOSE), PROTOCOL_ERROR),
    "a Close frame with a code nobody may send": (frame((1006).to_bytes(2, "big"), CLOSE), PROTOCOL_ERROR),
    "a Close frame with a reason that is no text": (frame(b"\x03\xe8\xff", CLOSE), NOT_TEXT),
}


@pytest.mark.chaos(
    row=24, ci=True, fault="a Close frame, then a protocol error, TCP left open", figure="left within 2 s"
)
def test_row_24_tcp_left_open(rig: Rig, row: Row) -> None:
    proxy = meddled(rig)
    for what, data in (
        ("Close frame", frame((1001).to_bytes(2, "big") + b"bye", CLOSE)),
        ("protocol error", frame(b"x", 0x3)),
    ):
        call, left_s = spoil(proxy, data, deaf=True)
        row.measured(f"left after a {what}", left_s, "s", 2.0)
        row.injected(f"a {what}, TCP left open", call.deaf)
        rig.flows(100)
    assert_good_ones_kept(rig, proxy)


@pytest.mark.chaos(
    row=25,
    ci=True,
    fault="payloads that are no events, then frames that are no frames",
    figure="rejected and published; another connection; no restart",
)
def test_row_25_corpus(rig: Rig, row: Row) -> None:
    proxy = meddled(rig)
    pid, reconnects = rig.process(stream(FLOOD)).pid, rig.stats()[KEY].reconnects
    for what, payload in PAYLOADS.items():
        row.injected(f"sent {what}", proxy.insert(frame(payload)))
        row.injected(f"sent {what} as binary", proxy.insert(frame(payload, BINARY)))
    rig.flows(50)
    assert rig.stats()[KEY].rejected == 2 * len(PAYLOADS)
    assert rig.stats()[KEY].reconnects == reconnects, "a bad payload costs no connection"
    for what, (data, code) in FRAMES.items():
        call, _ = spoil(proxy, data)
        row.injected(f"sent {what}", call.spoilt)
        assert call.closed_with == code, what
        rig.flows(20, [KEY])
    assert rig.stats()[KEY].reconnects == reconnects + len(FRAMES)
    assert_good_ones_kept(rig, proxy)
    assert rig.process(stream(FLOOD)).pid == pid
    assert rig.reading is not None
    published = [one["raw"].encode() for one in rig.reading.rejected if one["stream"] == KEY]
    sent = [payload[: 64 * 1024] for payload in PAYLOADS.values() for _ in range(2)]
    assert published == [one.decode("utf-8", "backslashreplace").encode() for one in sent]
    row.measured("rejected and published", len(published), "payloads")
    row.measured("frames that cost a connection", len(FRAMES), "")


@pytest.mark.chaos(
    row=26,
    fault="a frame of 2 MiB, one of 2^62 bytes, a million pings, a message in 130,000 fragments",
    figure="closed with 1009 or 1008, 2 MiB more memory at most",
)
def test_row_26_oversized(rig: Rig, row: Row) -> None:
    proxy = meddled(rig)
    part = frame(b"x" * 16, CONTINUATION, flags=0)
    parts = frame(b"[", TEXT, flags=0) + part * (2 * MIB // 16)
    assert_closed(rig, row, proxy, "2 MiB", frame(bytes(2 * MIB + 1)), TOO_BIG, 2.0)
    assert_closed(rig, row, proxy, "2^62 bytes", frame(bytes(4 * MIB), length=1 << 62), TOO_BIG, 2.0)
    assert_closed(rig, row, proxy, "pings", frame(b"", PING) * MIB, FLOODS, 2.0)
    assert_closed(rig, row, proxy, "fragments", parts, FLOODS, 2.0)
    assert_good_ones_kept(rig, proxy)


@pytest.mark.chaos(
    row=27,
    fault="compression that nobody agreed on: an event, a bomb of 64 MiB, a handshake that claims it",
    figure="closed with 1002, 4 MiB more memory at most",
)
def test_row_27_compressed(rig: Rig, row: Row) -> None:
    """The feed offers no extension, so the nearest to a bomb is a frame that says it is compressed."""
    proxy = meddled(rig)
    for what, payload in (("an event", trade(b"7")), ("a bomb", bytes(64 * MIB))):
        packer = zlib.compressobj(9, wbits=-15)
        packed = (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
        data = frame(packed, flags=FINAL | COMPRESSED)
        assert_closed(rig, row, proxy, what, data, PROTOCOL_ERROR, 4.0)
    proxy.extra_header = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
    called = len(proxy.calls)
    row.injected("cut, and handshakes claim compression", proxy.cut())
    until(lambda: len(proxy.calls) > called + 1, "refused, and asked again", 20.0)
    assert "handshake failed" in rig.stats()[KEY].last_error
    proxy.extra_header = b""
    rig.flows(50)
    assert_good_ones_kept(rig, proxy)


def meddled(rig: Rig) -> FrameProxy:
    """All streams flow, and the first one through the proxy; nothing is healed, so that what is stored came
    through it."""
    rig.start(between={FLOOD: FrameProxy}, config=NO_HEALING)
    rig.flows(100)
    return rig.between[FLOOD]


def spoil(proxy: FrameProxy, data: bytes, *, deaf: bool = False) -> tuple[Call, float]:
    """What the connection came to, and how long the relay took to leave it."""
    began = time.monotonic()
    (call,) = proxy.insert(data, spoils=True, deaf=deaf)
    return call, until(lambda: call.left_at, "the relay leaves", 40.0, 0.002) - began


def assert_closed(
    rig: Rig, row: Row, proxy: FrameProxy, what: str, data: bytes, code: int, limit_mib: float
) -> None:
    pid = rig.process(stream(FLOOD)).pid
    with growth(row, pid, f"memory for {what}", limit_mib):
        call, _ = spoil(proxy, data)
        rig.flows(100)
    row.injected(f"{what} announced or sent", call.spoilt)
    assert call.closed_with == code, what
    assert rig.process(stream(FLOOD)).pid == pid


@contextmanager
def growth(row: Row, pid: int, name: str, limit_mib: float) -> Iterator[None]:
    """Measures by how much a process is larger at its largest than before."""
    before = most = footprint(pid).rss_bytes
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        with suppress(KeyError, FileNotFoundError):
            while not over.wait(0.002):
                most = max(most, footprint(pid).rss_bytes)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    row.measured(name, (most - before) / MIB, "MiB", limit_mib)


def assert_good_ones_kept(rig: Rig, proxy: FrameProxy) -> None:
    """All that came before anything bad on its connection, and the invariants."""
    rig.judge()
    stored = {one.payload for one in rig.events(KEY)}
    passed = [payload for call in proxy.calls for payload in call.passed]
    missing = [payload for payload in passed if payload not in stored]
    assert passed and not missing, f"{len(missing)} events came before anything bad and are not stored"
