"""Has a heartbeat published every 30 s, beside the controller's tick, which never waits for NATS."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor

from relay.adapters.nats.heartbeat import publish
from relay.config import NatsConfig
from relay.errors import SluiceError
from relay.model.stats import RelayStatus
from relay.observability.heartbeat import EVERY_S, encoded

_log = logging.getLogger(__name__)

RETRY_S = 5.0

Beat = Callable[[NatsConfig, bytes], None]


def beat_now(nats: NatsConfig, payload: bytes) -> None:
    asyncio.run(publish(nats, payload))


class HeartbeatSender:
    """`problem` says why the last heartbeat did not get out; empty when it did. Use from one thread."""

    def __init__(self, beat: Beat = beat_now, executor: Executor | None = None) -> None:
        self.problem = ""
        self._beat = beat
        self._executor = executor or ThreadPoolExecutor(max_workers=1, thread_name_prefix="heart")
        self._running: Future[None] | None = None
        self._due_at = 0.0

    def tick(self, nats: NatsConfig, status: RelayStatus, now: float) -> None:
        if self._running is not None and self._running.done():
            self._settle(self._running, now)
        if self._running is None and now >= self._due_at:
            self._due_at = now + EVERY_S
            self._running = self._executor.submit(self._beat, nats, encoded(status, time.time_ns()))

    def _settle(self, running: Future[None], now: float) -> None:
        self._running = None
        before, self.problem = self.problem, ""
        try:
            running.result()
        except SluiceError as error:
            self.problem, self._due_at = str(error), now + RETRY_S
        if self.problem and self.problem != before:
            _log.warning("%s", self.problem)
        elif before and not self.problem:
            _log.info("heartbeats go out again")

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
