"""Creates the JetStream streams, apart from the controller's tick, and keeps checking that they exist.

Another user of NATS may delete or change one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from actors.controller.periodic_job import PeriodicJob
from relay.adapters.nats.provisioning import ensure_streams
from relay.config import Config, NatsConfig, StreamSettings
from relay.model.choices import Delivery

RETRY_S = 5.0
# A check is one request for each stream; a deleted stream holds up its events until it is made again.
CHECK_EVERY_S = 8.0
SHOW_FOR_S = 300.0

# Returns the names of what it created or changed.
Ensure = Callable[[NatsConfig, Sequence[StreamSettings]], Sequence[str]]


def ensure_now(nats: NatsConfig, streams: Sequence[StreamSettings]) -> Sequence[str]:
    return asyncio.run(ensure_streams(nats, streams))


class JetStreamKeeper:
    """Use from one thread. `problem` says why the streams could not be checked or made, or, for SHOW_FOR_S,
    which of them had to be created again; otherwise it is empty.
    """

    def __init__(self, ensure: Ensure = ensure_now, executor: Executor | None = None) -> None:
        self._ensure = ensure
        self._config: Config | None = None
        self._is_new = True
        self._made_again = ""
        self._shown_until = 0.0
        self._job = PeriodicJob(
            self._ensure_wanted, CHECK_EVERY_S, RETRY_S, name="jetstream", from_end=True, executor=executor
        )

    @property
    def problem(self) -> str:
        return self._job.problem or self._made_again

    def want(self, config: Config) -> None:
        """Start over with this configuration at the next tick."""
        self._config = config
        self._is_new = True
        self._job.run_soon()

    def tick(self, now: float) -> None:
        outcome = self._job.poll(now)
        if self._job.problem:
            self._made_again = ""
        elif outcome is not None:
            self._ended(*outcome, now)
        if self._config is not None and self._config.nats.delivery is Delivery.JETSTREAM:
            self._job.start_if_due(now)

    def _ended(self, config: Config, made: Sequence[str], now: float) -> None:
        if made and not self._is_new:
            names = ", ".join(made)
            self._made_again = (
                f"{names} was deleted or changed in NATS and has been made again: events may be gone"
            )
            self._shown_until = now + SHOW_FOR_S
        elif now >= self._shown_until:
            self._made_again = ""
        if config is self._config:
            self._is_new = False

    def _ensure_wanted(self) -> tuple[Config, Sequence[str]]:
        config = self._config
        assert config is not None
        return config, self._ensure(config.nats, config.streams)

    def close(self) -> None:
        self._job.close()
