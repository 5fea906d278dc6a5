"""Guards of the product, and how a test takes each of them away inside an actor's process.

A row that stays green without its guard proves nothing; `test_guards.py` takes them away one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import actors.publishing
import actors.stream
import relay.lane
from relay.intake import Intake
from relay.standing import Standing, look_up
from relay.window import Window


def switch_off(guard: str) -> None:
    GUARDS[guard]()


def _fence() -> None:
    """A new incarnation takes over without a fence, and nobody minds an older one."""
    take_over = actors.publishing.take_over

    async def unfenced(bus, spec, template, epoch):  # type: ignore[no-untyped-def]
        standing = await take_over(bus, spec, template, 1 << 62)
        return replace(standing, epoch=min(standing.epoch, epoch))

    actors.publishing.take_over = unfenced


def _resend() -> None:
    """What was in flight when a link ended is taken for delivered."""

    def forget(window: Window) -> None:
        if window._in_flight:
            window.acknowledge(window._in_flight[-1].offset)

    Window.rewind = forget  # type: ignore[method-assign]


def _chain() -> None:
    """Events name no predecessor, and nobody looks up what is stored: everything is sent again blindly."""

    async def blind(bus, spec, template, epoch):  # type: ignore[no-untyped-def]
        return Standing((await look_up(bus, spec, template)).subject, 0)

    actors.publishing.take_over = blind
    chain = relay.lane.Chain
    chain.expect_id = chain.expect_sequence = lambda self, _: None  # type: ignore[method-assign]


def _gap_check() -> None:
    """A hole in the ids is passed over."""
    Intake._hole_before = lambda self, payload, recv_ns, verdict: None  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    "fence": _fence,
    "resend": _resend,
    "chain": _chain,
    "gap check": _gap_check,
}
