"""Waiting for an event, or for a time."""

from __future__ import annotations

import asyncio

import pytest

from relay.adapters.waiting import wait_until_set


def test_a_set_event_is_not_waited_for() -> None:
    async def main() -> bool:
        event = asyncio.Event()
        event.set()
        return await wait_until_set(event, 60.0)

    assert asyncio.run(main())


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_setting_the_event_ends_the_wait(seconds: float | None) -> None:
    async def main() -> bool:
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, event.set)
        return await wait_until_set(event, seconds)

    assert asyncio.run(main())


def test_without_the_event_it_ends_after_the_time() -> None:
    async def main() -> bool:
        return await wait_until_set(asyncio.Event(), 0.01)

    assert not asyncio.run(main())
