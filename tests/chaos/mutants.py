"""Guards of the product, and how a test takes each of them away inside an actor's process.

A row that stays green without its guard proves nothing; `test_guards.py` takes them away one by one. The
journal has a switch of its own in the configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import actors.publisher.sessions
from actors.stream.connect_gate import ConnectGate, Permit
from relay.adapters.nats.fencing import EventTime, SubjectState, _last, read_position
from relay.delivery.window import SendWindow
from relay.feed.silence import SilenceDetector
from relay.intake.gap_tracker import GapTracker
from relay.model.position import StoredPosition
from relay.publish.chain import Chain
from relay.standby.election import Election
from relay.standby.replay_buffer import AppendResult, ReplayBuffer


def switch_off(guard: str) -> None:
    GUARDS[guard]()


def _fence() -> None:
    """A new incarnation takes over without a fence, and an older one is served like any other."""

    async def unfenced(
        connection: Any, spec: Any, template: str, epoch: int, event_time: EventTime
    ) -> SubjectState:
        state = await read_position(connection, spec, template)
        last = await _last(connection, spec, state.subject, event_time)
        if last is None:
            return state
        return replace(state, stored=StoredPosition(*last.position.epoch_seq))

    actors.publisher.sessions.fence_and_read = unfenced  # type: ignore[attr-defined]


def _resend() -> None:
    """What was in flight when a link ended is taken for delivered."""

    def forget(window: SendWindow) -> None:
        if window._in_flight:
            window.acknowledge(window._in_flight[-1].offset)

    SendWindow.rewind = forget  # type: ignore[method-assign, assignment]


def _chain() -> None:
    """Events name no predecessor, and nobody looks up what is stored: everything is sent again blindly."""

    async def blind(
        connection: Any, spec: Any, template: str, epoch: int, event_time: EventTime
    ) -> SubjectState:
        return SubjectState((await read_position(connection, spec, template)).subject, 0)

    actors.publisher.sessions.fence_and_read = blind  # type: ignore[attr-defined]
    Chain.expect = lambda self, place, last_id=b"": None  # type: ignore[method-assign, assignment]


def _gap_check() -> None:
    """A gap in the ids, or a time without a connection, is passed over."""
    GapTracker.missing_before = lambda self, payload, recv_ns, classification: None  # type: ignore[method-assign]


def _memory() -> None:
    """A standby remembers nothing."""
    ReplayBuffer.append = lambda self, payloads, recv_ns: AppendResult(len(payloads), False)  # type: ignore[method-assign]


def _election() -> None:
    """A standby never takes over."""
    Election.must_take_over = lambda self, own, now, *, covers: False  # type: ignore[method-assign]


def _silence() -> None:
    """A stream that brings nothing is quiet, for however long."""
    SilenceDetector.overdue_s = lambda self, now: None  # type: ignore[method-assign]


def _connect_budget() -> None:
    """Every stream connects whenever its own back-off lets it."""

    async def admit(gate: ConnectGate, *, low_priority: bool) -> Permit:
        return Permit(None)

    ConnectGate.admit = admit  # type: ignore[method-assign, assignment]


GUARDS: dict[str, Callable[[], None]] = {
    "fence": _fence,
    "resend": _resend,
    "chain": _chain,
    "gap check": _gap_check,
    "memory": _memory,
    "election": _election,
    "silence": _silence,
    "connect budget": _connect_budget,
}
