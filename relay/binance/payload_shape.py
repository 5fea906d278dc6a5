"""A regular expression for the payloads of one stream, made from one that was checked field by field; pure.

Binance writes the payloads of a stream with the same keys in the same order, so a match costs 0.5 us for a
trade where parsing costs 1.7. The expression is at least as strict as the full check, and a payload that does
not match is checked field by field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

# The values of these fields say which stream a payload belongs to, so they must be the same in each.
_IDENTITY = frozenset({"e", "s", "S", "i", "ps", "ct"})
# At most 18 digits, so that the number fits into signed 64 bits.
_WHOLE_NUMBER = rb"-?(?:0|[1-9][0-9]{0,17})"
_ID = rb"(0|[1-9][0-9]{0,17})"
_TEXT = rb'"[^"\\\x00-\x1f\x7f-\xff]*"'
_BOOL = rb"(?:true|false)"

PayloadShape = Callable[[bytes], re.Match[bytes] | None]


def shape_of(frame: Mapping[str, Any], payload: bytes, id_key: str) -> PayloadShape | None:
    """`frame` is `payload` parsed. Group 1 of a match is the value of `id_key`, if that is not empty.

    None if the payload has objects, lists or fractions in it, or spaces between its tokens.
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
