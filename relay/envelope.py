"""The bytes of one message: the old client's envelope around the untouched payload, and its headers.

The payload is never parsed or copied here: callers send `head`, the payload and the tail one after another.
"""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from relay.record import Kind, Record

_DATA, _AFTER_DATA = b',"data":', b',"timestamp":"'
_FROM_REST = frozenset({Kind.HEALED, Kind.REPAIR})


class Envelope:
    """The envelope of one stream. `stream` is the name subscribed to, never what a payload claims to be."""

    def __init__(self, stream: str) -> None:
        quoted = orjson.dumps(stream)
        # Message ids repeat the name inside JSON and inside headers, where nothing escapes it.
        assert quoted == f'"{stream}"'.encode(), "the grammar of streams has no quotes or control characters"
        self.head = b'{"stream":%b,"data":' % quoted
        self._second = -1
        self._prefix = ""

    def tail(self, recv_ns: int, message_id: str) -> bytes:
        second, nanos = divmod(recv_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime(',"timestamp":"%Y-%m-%dT%H:%M:%S.')
        return (
            f'{self._prefix}{nanos // 1000:06d}Z","message_id":"{message_id}"'
            ',"source":"binance-websocket","version":"1.0"}'
        ).encode()

    def wrap(self, payload: bytes, recv_ns: int, message_id: str) -> bytes:
        return self.head + payload + self.tail(recv_ns, message_id)


def payload_of(body: bytes) -> bytes:
    """What `wrap` was given; empty for a message that somebody else wrote."""
    start, end = body.find(_DATA), body.rfind(_AFTER_DATA)
    return body[start + len(_DATA) : end] if 0 <= start < end else b""


def headers(message_id: str, condition: str, record: Record) -> bytes:
    """The header block of one message; `condition` is the chain's header line, or empty."""
    healed = "Sluice-Healed: 1\r\n" if record.kind in _FROM_REST else ""
    return (
        f"NATS/1.0\r\nNats-Msg-Id: {message_id}\r\n{condition}Sluice-Seq: {record.seq}\r\n"
        f"Sluice-Epoch: {record.epoch}\r\nSluice-Recv-Ns: {record.recv_ns}\r\n{healed}\r\n"
    ).encode()
