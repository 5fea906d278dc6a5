"""Server-side WebSocket frames (RFC 6455, unmasked and unfragmented): a batch of events becomes one block of
bytes.

The library would send each frame by itself, which costs too much in a flood.
"""

from __future__ import annotations

from functools import cache

_TEXT = 0x81
_PING = 0x89


@cache
def _header(length: int) -> bytes:
    if length < 126:
        return bytes((_TEXT, length))
    if length < 1 << 16:
        return bytes((_TEXT, 126)) + length.to_bytes(2, "big")
    return bytes((_TEXT, 127)) + length.to_bytes(8, "big")


def text_frame(payload: bytes) -> bytes:
    return _header(len(payload)) + payload


def ping_frame(payload: bytes) -> bytes:
    return bytes((_PING, len(payload))) + payload


def raw_block(payloads: list[bytes]) -> bytes:
    return b"".join([part for payload in payloads for part in (_header(len(payload)), payload)])


def combined_block(stream: bytes, payloads: list[bytes]) -> bytes:
    """Each payload as `{"stream":<stream>,"data":<payload>}`."""
    lead = b'{"stream":"%b","data":' % stream
    extra = len(lead) + 1
    return b"".join(
        [part for payload in payloads for part in (_header(len(payload) + extra), lead, payload, b"}")]
    )


def combined(stream: bytes, payload: bytes) -> bytes:
    return b'{"stream":"%b","data":%b}' % (stream, payload)
