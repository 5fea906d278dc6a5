"""Creates the JetStream streams beside the controller's tick, and looks again and again whether they are
there: somebody may delete one, or change it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from relay.adapters.nats.provisioning import ensure_streams
from relay.config import Config, NatsConfig, StreamSettings
from relay.errors import SluiceError
from relay.model.choices import Delivery

RETRY_S = 5.0
# A look asks once for each stream; a stream that is gone holds up its events until it is made again.
CHECK_EVERY_S = 8.0
TOLD_FOR_S = 300.0

# Returns the names of what it created or changed.
Ensure = Callable[[NatsConfig, Sequence[StreamSettings]], Sequence[str]]


def ensure_now(nats: NatsConfig, streams: Sequence[StreamSettings]) -> Sequence[str]:
    return asyncio.run(ensure_streams(nats, streams))


class JetStreamKeeper:
    """NATS being away never holds up anybody else. `problem` is empty once the streams are there, and says
    for a while what had to be made again.
    """

    def __init__(self, ensure: Ensure = ensure_now) -> None:
        self.problem = ""
        self._ensure = ensure
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jetstream")
        self._wanted: Config | None = None
        self._running: Future[Sequence[str]] | None = None
        self._retry_at: float | None = None
        self._is_new = True
        self._told_until: float | None = None

    def want(self, config: Config) -> None:
        """Start over with this configuration at the next tick."""
        self._wanted = config
        self._retry_at = None
        self._is_new = True

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

    def _settle(self, running: Future[Sequence[str]], now: float) -> None:
        self._running = None
        again = self._wanted is None
        self._wanted = self._wanted or self._attempted
        try:
            made = running.result()
        except SluiceError as error:
            self.problem, self._told_until = str(error), None
            self._retry_at = now + RETRY_S
            return
        if made and not self._is_new:
            names = ", ".join(made)
            self.problem = (
                f"{names} was deleted or changed in NATS and has been made again: events may be gone"
            )
            self._told_until = now + TOLD_FOR_S
        elif self._told_until is None or now >= self._told_until:
            self.problem = ""
        if again:
            self._is_new = False
            self._retry_at = now + CHECK_EVERY_S

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
