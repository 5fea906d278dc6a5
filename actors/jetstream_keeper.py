"""Creates the JetStream streams beside the controller's tick, again and again until it succeeded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from relay.config import Config, Delivery, NatsConfig, StreamSettings
from relay.errors import SluiceError
from relay.jetstream import ensure_streams

RETRY_S = 5.0

Ensure = Callable[[NatsConfig, Sequence[StreamSettings]], None]


def ensure_now(nats: NatsConfig, streams: Sequence[StreamSettings]) -> None:
    asyncio.run(ensure_streams(nats, streams))


class JetStreamKeeper:
    """NATS being away never holds up anybody else; `problem` is empty once the streams are there."""

    def __init__(self, ensure: Ensure = ensure_now) -> None:
        self.problem = ""
        self._ensure = ensure
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jetstream")
        self._wanted: Config | None = None
        self._running: Future[None] | None = None
        self._retry_at: float | None = None

    def want(self, config: Config) -> None:
        """Start over with this configuration at the next tick."""
        self._wanted = config
        self._retry_at = None

    def tick(self, now: float) -> None:
        if self._running is not None:
            if not self._running.done():
                return
            self._settle(self._running, now)
        due = self._retry_at is None or now >= self._retry_at
        if self._wanted is None or not due:
            return
        config, self._wanted = self._wanted, None
        if config.nats.delivery is Delivery.JETSTREAM:
            self._attempted = config
            self._running = self._executor.submit(self._ensure, config.nats, config.streams)

    def _settle(self, running: Future[None], now: float) -> None:
        self._running = None
        try:
            running.result()
        except SluiceError as error:
            self.problem = str(error)
            self._retry_at = now + RETRY_S
            self._wanted = self._wanted or self._attempted
        else:
            self.problem = ""

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
