"""The event loop of an actor's data plane, in a thread of its own: Ray's calls never delay an event.

The methods that Ray calls run on other threads; they use the loop's state through `call` and `read` only.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
# Python searches for reference cycles when the number of containers has grown by this; by default 700.
GC_THRESHOLD = 20_000


class ActorLoop:
    """Runs one main coroutine; when that has returned, the loop still answers `call` and `read` until `stop`.

    An uncaught exception, in the main coroutine or in a callback, is logged once and ends the process, so
    that Ray restarts the actor: without its main coroutine it would seem alive and do nothing.
    """

    def __init__(self, name: str, *, end: Callable[[int], object] = os._exit) -> None:
        self._end = end
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._loop.set_exception_handler(self._on_exception)
        self._main: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Call it once; `main` itself is called in the loop's thread."""
        # Imported modules are never freed, so collections need not visit them. The hot path makes no cycles.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 50)
        self._thread.start()
        self._loop.call_soon_threadsafe(self._begin, main)

    def call(self, coroutine: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def read(self, function: Callable[[], _T], timeout_s: float = 5.0) -> _T:
        """Runs `function` in the loop, between two callbacks, and returns its result. Raises TimeoutError."""

        async def run() -> _T:
            return function()

        return self.call(run()).result(timeout_s)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel the main coroutine, let it clean up, and end the thread. Call it from another thread."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel_leftovers())
        finally:
            self._loop.close()

    def _begin(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._main = self._loop.create_task(main())
        self._main.add_done_callback(self._on_main_done)

    def _cancel(self) -> None:
        if self._main is None or self._main.done():
            self._loop.stop()
            return
        self._main.add_done_callback(lambda _: self._loop.stop())
        self._main.cancel()

    def _on_main_done(self, main: asyncio.Task[None]) -> None:
        if not main.cancelled() and (error := main.exception()) is not None:
            self._crash("the data plane failed", error)

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # Not fatal: the owner of a connection handles its OSError, and the exception of a future that nobody
        # awaits (a context without handle and protocol) stops nothing.
        if isinstance(error, OSError) or not ({"handle", "protocol"} & context.keys()):
            _log.warning("%s: %s", context.get("message"), error)
        else:
            self._crash(str(context.get("message")), error)

    def _crash(self, what: str, error: BaseException | None) -> None:
        _log.critical("%s: %s; the process ends", self._thread.name, what, exc_info=error)
        self._end(1)


async def _cancel_leftovers() -> None:
    """Ends tasks of libraries and lets sockets close, before the loop is closed."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    # A closed transport needs two more iterations of the loop to close its socket.
    for _ in range(3):
        await asyncio.sleep(0)
