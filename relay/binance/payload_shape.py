"""What the frames of one stream look like as bytes, learned from one that was judged field by field; pure.

Binance writes a stream's flat frames with the same keys in the same order, so a regular expression can hold
the next one against them: 0.5 us for a trade instead of 1.7. It is as strict as the full check, or stricter:
what does not match is judged field by field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

# Their values say which stream a frame belongs to, so they must be the same again.
_IDENTITY = frozenset({"e", "s", "S", "i", "ps", "ct"})
# Fewer digits than a signed 64-bit number has.
_WHOLE_NUMBER = rb"-?(?:0|[1-9][0-9]{0,17})"
_ID = rb"(0|[1-9][0-9]{0,17})"
_TEXT = rb'"[^"\\\x00-\x1f\x7f-\xff]*"'
_BOOL = rb"(?:true|false)"

PayloadShape = Callable[[bytes], re.Match[bytes] | None]


def shape_of(frame: Mapping[str, Any], payload: bytes, id_key: str) -> PayloadShape | None:
    """`payload` parsed is `frame`. Group 1 of a match is the value of `id_key`, if that is not empty.

    None for a frame with objects, lists or fractions in it, or with other spacing.
    """
    fields = []
    for key, value in frame.items():
        token = _ID if key == id_key else _token(key, value)
        if token is None:
            return None
        fields.append(re.escape(orjson.dumps(key)) + b":" + token)
    shape = re.compile(rb"\{" + b",".join(fields) + rb"\}").fullmatch
    return shape if shape(payload) else None


def _token(key: str, value: Any) -> bytes | None:
    if key in _IDENTITY:
        return re.escape(orjson.dumps(value))
    return {int: _WHOLE_NUMBER, str: _TEXT, bool: _BOOL}.get(type(value))
