"""What the time of an event's sending is taken for."""

from __future__ import annotations

import pytest

from relay.binance.event_time import MOST_NS, event_time_ns

READ_NS = 1_795_755_036_000_000_000
READ_MS = READ_NS // 10**6


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"e":"bookTicker","E":%d}' % (READ_MS - 6_700), READ_NS - 6_700_000_000),
        (b'{"e":"bookTicker","E":%d}' % (READ_MS + 40), READ_NS),
        (b'{"e":"bookTicker","E":%d}' % (READ_MS - MOST_NS // 10**6), READ_NS),
        (b'{"u":400900217,"s":"BNBUSDT"}', READ_NS),
        (b'{"E":"soon"}', READ_NS),
        (b"[1]", READ_NS),
        (b"", READ_NS),
    ],
)
def test_an_event_was_sent_when_it_says_unless_that_cannot_be(payload: bytes, expected: int) -> None:
    assert event_time_ns(payload, READ_NS) == expected
