"""The loop of an actor's data plane: who may reach it, and what happens when it fails."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from actors.runtime.loop import ActorLoop


class Ended:
    """Stands in for the end of the process."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.happened = threading.Event()

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.happened.set()


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def started(ended: Ended) -> Iterator[Callable[[Callable[[], Coroutine[Any, Any, None]]], ActorLoop]]:
    loops: list[ActorLoop] = []

    def start(main: Callable[[], Coroutine[Any, Any, None]]) -> ActorLoop:
        loop = ActorLoop("test", end=ended)
        loop.start(main)
        loops.append(loop)
        return loop

    yield start
    for loop in loops:
        loop.stop()


async def forever() -> None:
    await asyncio.Event().wait()


async def nothing() -> None: ...


def test_a_coroutine_runs_in_the_loops_thread(started: Any) -> None:
    async def name() -> str:
        return threading.current_thread().name

    assert started(forever).call(name()).result(5) == "test"


def test_a_look_runs_between_two_callbacks_of_the_loop(started: Any) -> None:
    assert started(forever).read(asyncio.get_running_loop).is_running()


def test_errors_of_a_call_go_to_the_caller_alone(started: Any, ended: Ended) -> None:
    async def fail() -> None:
        raise ValueError("mine")

    loop = started(forever)
    with pytest.raises(ValueError, match="mine"):
        loop.call(fail()).result(5)
    assert loop.read(lambda: 3) == 3
    assert ended.codes == []


def test_it_answers_after_the_main_coroutine_has_returned(started: Any) -> None:
    assert started(nothing).read(lambda: 7) == 7


def test_stopping_lets_the_main_coroutine_clean_up(started: Any, ended: Ended) -> None:
    cleaned = threading.Event()

    async def main() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    loop = started(main)
    loop.read(lambda: None)
    loop.stop()
    assert cleaned.is_set()
    assert ended.codes == []


def test_stopping_twice_is_harmless(started: Any) -> None:
    loop = started(forever)
    loop.stop()
    loop.stop()
    assert "test" not in {thread.name for thread in threading.enumerate()}


def test_a_failed_main_coroutine_ends_the_process(started: Any, ended: Ended, caplog: Any) -> None:
    async def main() -> None:
        raise RuntimeError("broken")

    started(main)
    assert ended.happened.wait(5)
    assert ended.codes == [1]
    assert "broken" in caplog.text


def test_a_failed_callback_ends_the_process(started: Any, ended: Ended) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    started(main)
    assert ended.happened.wait(5)
    assert ended.codes == [1]


def test_a_failed_protocol_ends_the_process(started: Any, ended: Ended) -> None:
    class Broken(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            raise RuntimeError("broken")

    ours, theirs = socket.socketpair()
    with theirs:

        async def main() -> None:
            await asyncio.get_running_loop().create_unix_connection(Broken, sock=ours)

        started(main)
        theirs.send(b"x")
        assert ended.happened.wait(5)


def test_a_broken_connection_does_not_end_the_process(started: Any, ended: Ended) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler(
            {"message": "Fatal read error", "exception": TimeoutError(), "protocol": None}
        )

    loop = started(main)
    loop.read(lambda: None)
    loop.read(lambda: None)
    assert ended.codes == []
