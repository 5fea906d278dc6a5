"""The envelope in which consumers find a payload, whose bytes are never parsed or rewritten; pure.

Its parts in order: `head`, the payload, `stamp`, the message id, TAIL.
"""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

TAIL = b'","source":"binance-websocket","version":"1.0"}'
_DATA, _AFTER_DATA = b',"data":', b',"timestamp":"'


class Envelope:
    """The envelope of one stream. `stream` is the name subscribed to, never what a payload claims to be."""

    def __init__(self, stream: str) -> None:
        quoted = orjson.dumps(stream)
        # Message ids repeat the name in JSON and in headers, where it is not escaped.
        assert quoted == f'"{stream}"'.encode(), "the grammar of streams has no quotes or control characters"
        self.head = b'{"stream":%b,"data":' % quoted
        self._second = -1
        self._prefix = ""

    def stamp(self, recv_ns: int) -> bytes:
        """The part between payload and message id: the time of reading in UTC, to the microsecond."""
        second, nanos = divmod(recv_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = datetime.fromtimestamp(second, UTC).strftime(',"timestamp":"%Y-%m-%dT%H:%M:%S.')
        return f'{self._prefix}{nanos // 1000:06d}Z","message_id":"'.encode()

    def wrap(self, payload: bytes, recv_ns: int, message_id: bytes) -> bytes:
        return b"%b%b%b%b%b" % (self.head, payload, self.stamp(recv_ns), message_id, TAIL)


def payload_of(body: bytes) -> bytes:
    """The payload of an envelope; empty for a message that no publisher wrote."""
    start, end = body.find(_DATA), body.rfind(_AFTER_DATA)
    return body[start + len(_DATA) : end] if 0 <= start < end else b""
