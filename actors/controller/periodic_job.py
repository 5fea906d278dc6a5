"""Work that is repeated apart from the controller's tick, which must never wait for it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from math import inf
from typing import Generic, TypeVar

from relay.errors import SluiceError

_T = TypeVar("_T")


class PeriodicJob(Generic[_T]):
    """Runs `work` on a thread of its own every `every_s`, and `retry_s` after a run that raised SluiceError.

    `problem` is that error's text until a run succeeds. `every_s` counts from the start of a run, or from its
    end with `from_end`, so that slow work pauses as well. Use from one thread; `now` is monotonic seconds.
    """

    def __init__(
        self,
        work: Callable[[], _T],
        every_s: float,
        retry_s: float,
        *,
        name: str,
        from_end: bool = False,
        executor: Executor | None = None,
    ) -> None:
        self.problem = ""
        self._work = work
        self._every_s = every_s
        self._retry_s = retry_s
        self._from_end = from_end
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._running: Future[_T] | None = None
        self._due_at = -inf
        self._soon = False

    def run_soon(self) -> None:
        """The next run is due at once; one that is under way ends before it."""
        self._due_at, self._soon = -inf, True

    def poll(self, now: float) -> _T | None:
        """The result of a run that has ended successfully since the last call."""
        running = self._running
        if running is None or not running.done():
            return None
        self._running = None
        try:
            result = running.result()
        except SluiceError as error:
            self.problem, self._due_at = str(error), now + self._retry_s
            return None
        self.problem = ""
        if self._from_end and not self._soon:
            self._due_at = now + self._every_s
        return result

    def start_if_due(self, now: float) -> None:
        """Unless a run is under way."""
        if self._running is None and now >= self._due_at:
            self._due_at, self._soon = now + self._every_s, False
            self._running = self._executor.submit(self._work)

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
