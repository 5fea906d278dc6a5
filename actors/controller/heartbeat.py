"""Publishes the heartbeat every 30 s, apart from the controller's tick, which must never wait for NATS."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor

from actors.controller.periodic_job import PeriodicJob
from relay.adapters.nats.heartbeat import publish
from relay.config import NatsConfig
from relay.model.stats import RelayStatus
from relay.observability.heartbeat import HEARTBEAT_INTERVAL_S, encoded

_log = logging.getLogger(__name__)

RETRY_S = 5.0

Beat = Callable[[NatsConfig, bytes], None]


def beat_now(nats: NatsConfig, payload: bytes) -> None:
    asyncio.run(publish(nats, payload))


class HeartbeatSender:
    """`problem` says why the last heartbeat was not published; empty when it was. Use from one thread."""

    def __init__(self, beat: Beat = beat_now, executor: Executor | None = None) -> None:
        self._beat = beat
        self._latest: tuple[NatsConfig, RelayStatus] | None = None
        self._job = PeriodicJob(self._publish, HEARTBEAT_INTERVAL_S, RETRY_S, name="heart", executor=executor)

    @property
    def problem(self) -> str:
        return self._job.problem

    def tick(self, nats: NatsConfig, status: RelayStatus, now: float) -> None:
        self._latest = (nats, status)
        before = self.problem
        self._job.poll(now)
        if self.problem and self.problem != before:
            _log.warning("%s", self.problem)
        elif before and not self.problem:
            _log.info("heartbeats go out again")
        self._job.start_if_due(now)

    def _publish(self) -> None:
        assert self._latest is not None
        nats, status = self._latest
        self._beat(nats, encoded(status, time.time_ns()))

    def close(self) -> None:
        self._job.close()
