"""Actors that only do what the controller sees of the real ones: they start quickly and need no server."""

from __future__ import annotations

import os
from pathlib import Path

from relay.config import NatsConfig, StreamSettings
from relay.model.assignment import Assignment
from relay.model.stats import PublisherStats, StreamState, StreamStats
from relay.observability.metric_recording import PublisherMetrics, StreamMetrics
from relay.ports import Host
from tests.support.fakes import publisher_stats, stream_stats


class StandInSettings:
    def __init__(self, nats: NatsConfig) -> None:
        self.nats = nats


class StandInStream:
    """Uses the publisher that it is told to, from the first moment that it can know it."""

    def __init__(self, settings: StreamSettings, host: Host) -> None:
        self._settings = settings
        self._host = host
        self._assignment = host.assignment(settings.spec.key)
        self._state = StreamState.LIVE
        self._metrics = StreamMetrics(host.metrics, settings.spec.key)

    def __repr__(self) -> str:
        return f"Stream({self._settings.spec.name})"

    def stats(self) -> StreamStats:
        assigned = self._assignment
        stats = stream_stats(
            self._settings.spec.key,
            state=self._state,
            pid=os.getpid(),
            node=self._host.node,
            publisher=assigned.publisher if assigned else None,
            linked=assigned is not None,
            assignment_version=assigned.version if assigned else 0,
            queued=3,
            received=13,
        )
        self._host.set_title(f"ray::Stream {stats.stream} backlog=3")
        self._metrics.update(stats, {})
        return stats

    def assign(self, assignment: Assignment) -> None:
        self._assignment = assignment

    def drain(self, deadline_s: float) -> StreamStats:
        self._state = StreamState.STOPPED
        return self.stats()


class StandInPublisher:
    def __init__(self, name: str, settings: StandInSettings, host: Host) -> None:
        self._name = name
        self._host = host
        self._draining = False
        self._unix_path: Path = host.socket_directory / f"{name}-{os.getpid()}"
        self._metrics = PublisherMetrics(host.metrics, name)

    def __repr__(self) -> str:
        return f"Publisher({self._name})"

    def stats(self) -> PublisherStats:
        stats = publisher_stats(
            self._name,
            pid=os.getpid(),
            node=self._host.node,
            unix_path=str(self._unix_path),
            tcp_address=f"{self._host.address}:1",
            draining=self._draining,
            streams=(str(os.nice(0)), str(len(self._host.secret))),
        )
        self._metrics.update(stats, {})
        return stats

    def drain(self, deadline_s: float) -> PublisherStats:
        self._draining = True
        return self.stats()
