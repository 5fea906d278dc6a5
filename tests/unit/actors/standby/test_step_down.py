"""What an instance reads while it waits to see whether to step down."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.standby.step_down import DECISION_DELAY_S, StepDown
from actors.stream.relay import StreamRelay
from relay.errors import SteppedDown


class Relay:
    """Notes in which order it gets what."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.intake = SimpleNamespace(disconnected=lambda: self.got.append("gap"))
        self.settings = SimpleNamespace(spec=SimpleNamespace(key="usdm:btcusdt@trade"))

    def accept(self, payloads: list[bytes], recv_ns: int) -> None:
        self.got.append((payloads, recv_ns))


def step_down(relay: Relay) -> StepDown:
    return StepDown(cast(StreamRelay, relay))


def test_who_stays_takes_all_that_was_read_behind_the_gaps_it_was_read_behind() -> None:
    relay = Relay()
    waiting = step_down(relay)
    waiting.hold([b"1", b"2"], 10)
    waiting.mark_discontinuity()
    waiting.hold([b"3"], 20)
    assert relay.got == []
    waiting.resume()
    assert relay.got == ["gap", ([b"1", b"2"], 10), "gap", ([b"3"], 20)]


def test_who_leaves_takes_nothing() -> None:
    relay = Relay()
    waiting = step_down(relay)
    waiting.hold([b"1"], 10)
    with pytest.raises(SteppedDown, match="goes on with its other instance"):
        waiting.step_down()
    assert relay.got == []


def test_it_is_settled_once_the_other_instance_has_sent_a_status_since() -> None:
    waiting, now = step_down(Relay()), time.monotonic()
    assert not waiting.is_due(now)
    assert waiting.is_due(now + DECISION_DELAY_S + 1.0)
