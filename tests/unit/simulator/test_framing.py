"""Frames written by hand, against those of the library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from simulator.framing import combined_block, ping_frame, raw_block, text_frame


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
def test_hand_written_frames_are_the_librarys(length: int) -> None:
    payload = b"x" * length
    expected = Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert text_frame(payload) == expected
    assert raw_block([payload, payload]) == expected * 2


@given(payloads=st.lists(st.binary(max_size=300), max_size=5))
def test_the_combined_form_wraps_the_payloads_unchanged(payloads: list[bytes]) -> None:
    wrapped = [b'{"stream":"a@trade","data":' + payload + b"}" for payload in payloads]
    assert combined_block(b"a@trade", payloads) == b"".join(text_frame(text) for text in wrapped)


def test_a_ping_carries_its_payload() -> None:
    assert ping_frame(b"123") == Frame(Opcode.PING, b"123").serialize(mask=False)
