"""How many handshakes an address may make, and refusals that a test asks for."""

from __future__ import annotations

import pytest

from relay.errors import UsageError
from simulator.handshake_limits import HANG, HandshakeLimiter, Refusal


def test_the_door_counts_five_minutes_of_attempts_and_then_refuses() -> None:
    limiter = HandshakeLimiter(3)
    assert [limiter.admit(at) for at in (0.0, 1.0, 2.0)] == [None] * 3
    assert limiter.admit(10.0) == Refusal(429, 291)
    assert limiter.recent(301.5) == 2
    assert limiter.admit(302.0) is None
    assert limiter.attempts == 5


def test_a_refusal_ends_after_its_count() -> None:
    limiter = HandshakeLimiter(100)
    limiter.refuse(Refusal(HANG), 2)
    assert [limiter.admit(0.0) for _ in range(3)] == [Refusal(HANG), Refusal(HANG), None]


def test_a_refusal_without_a_count_ends_by_accepting() -> None:
    limiter = HandshakeLimiter(100)
    limiter.refuse(Refusal(503, 5), None)
    assert [limiter.admit(0.0) for _ in range(2)] == [Refusal(503, 5)] * 2
    limiter.accept()
    assert limiter.admit(0.0) is None


@pytest.mark.parametrize("how", [200, 301, "softly"])
def test_a_refusal_that_refuses_nothing_is_not_taken(how: int | str) -> None:
    with pytest.raises(UsageError, match="no way to refuse"):
        HandshakeLimiter(1).refuse(Refusal(how), None)
