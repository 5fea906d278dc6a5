"""Waiting for what a test can only ask about again and again, because the sides share no event."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from relay.errors import ClusterError
from relay.model.stats import RelayStatus

T = TypeVar("T")


def until(
    met: Callable[[], T | None], what: str = "the condition", within_s: float = 60.0, pause_s: float = 0.02
) -> T:
    """The first true value of `met`; raises AssertionError that says what never came."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not (found := met()):
        assert time.monotonic() < deadline, f"never happened within {within_s:g} s: {what}"
        pause.wait(pause_s)
    return found


async def until_async(
    met: Callable[[], T | None], what: str = "the condition", within_s: float = 15.0, pause_s: float = 0.005
) -> T:
    """The same on an event loop, which works on meanwhile."""
    deadline = time.monotonic() + within_s
    while not (found := met()):
        assert time.monotonic() < deadline, f"never happened within {within_s:g} s: {what}"
        await asyncio.sleep(pause_s)
    return found


def until_status(
    read: Callable[[], RelayStatus],
    met: Callable[[RelayStatus], object],
    what: str,
    within_s: float = 60.0,
    pause_s: float = 0.1,
) -> RelayStatus:
    """The first status of a relay that is as wanted; while there is none, `read` raises ClusterError."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    status = None
    while time.monotonic() < deadline:
        with contextlib.suppress(ClusterError):
            if met(status := read()):
                return status
        pause.wait(pause_s)
    raise AssertionError(f"never happened within {within_s:g} s: {what}; last seen {status}")
