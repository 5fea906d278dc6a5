"""The publisher actor: sends many streams' records to NATS, all of which their actors hold too.

Killing it loses nothing: each stream actor still has what was unacknowledged and resends it, in order,
through another publisher, and NATS recognises a repeat by its message id.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import time

from actors.publisher.gauges import PublisherGauges
from actors.publisher.sessions import PublisherSessions, PublisherSettings
from actors.runtime.loop import ActorLoop
from relay.adapters.link_server import Listeners
from relay.errors import BusError
from relay.model.stats import PublisherStats
from relay.observability.metric_recording import PublisherMetrics
from relay.ports import Host

__all__ = ["PublisherActor", "PublisherSettings"]

_log = logging.getLogger(__name__)

START_TIMEOUT_S = 10.0
TICK_S = 0.25
# In ticks; Alive has to be sent twice a second (relay/adapters/link_client.py).
ALIVE_EVERY, MEASURE_EVERY, LOG_EVERY = 2, 4, 40


class PublisherActor:
    """The actor that Ray runs; its methods may be called from any thread.

    Raises BusError if it cannot listen. NATS need not be reachable yet.
    """

    def __init__(self, name: str, settings: PublisherSettings, host: Host) -> None:
        self._name = name
        self._loop = ActorLoop(f"publisher {name}")
        started: concurrent.futures.Future[Publisher] = concurrent.futures.Future()
        self._loop.start(lambda: _run(Publisher(name, settings, host), started))
        self._publisher = started.result(START_TIMEOUT_S)

    def __repr__(self) -> str:
        return f"Publisher({self._name})"

    def stats(self) -> PublisherStats:
        return self._loop.read(self._publisher.stats)

    def drain(self, deadline_s: float) -> PublisherStats:
        """Accept no new link, wait for the streams to leave, at most for `deadline_s`, then close the rest.

        The actor still answers `stats`.
        """
        return self._loop.call(self._publisher.drain(deadline_s)).result(deadline_s + 5.0)

    def stop(self) -> None:
        """For instances without Ray, in tests; Ray ends the process instead."""
        self._loop.stop()


async def _run(publisher: Publisher, started: concurrent.futures.Future[Publisher]) -> None:
    try:
        await publisher.open()
    except BusError as error:
        started.set_exception(error)
        return
    started.set_result(publisher)
    await publisher.run()


class Publisher:
    """Everything of one publisher, on one event loop."""

    def __init__(self, name: str, settings: PublisherSettings, host: Host) -> None:
        self._name = name
        self._host = host
        self._gauges = PublisherGauges()
        self._sessions = PublisherSessions(name, settings, self._gauges)
        self._listeners = Listeners(self._sessions, host.secret)
        self._metrics = PublisherMetrics(host.metrics, name)

    async def open(self) -> None:
        await self._listeners.open(self._name, self._host.socket_directory, self._host.address)

    async def run(self) -> None:
        self._gauges.measure(time.monotonic())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sessions.connection_keeper.run())
                group.create_task(self._tick())
        finally:
            self._listeners.close()
            self._sessions.close_links("the publisher ends")

    async def _tick(self) -> None:
        ticks, last = 0, time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            ticks, now = ticks + 1, time.monotonic()
            # If this process was stopped, answers that came meanwhile are read before anything counts as
            # stalled.
            if now - last < 4 * TICK_S:
                self._sessions.watch(now)
            last = now
            if ticks % ALIVE_EVERY == 0:
                self._sessions.send_alive()
            if ticks % MEASURE_EVERY == 0:
                self._gauges.measure(now)
                self._sessions.measure()
                self._report(ticks % LOG_EVERY == 0)

    def _report(self, in_log: bool) -> None:
        stats = self.stats()
        self._metrics.update(stats, self._gauges.histograms)
        title = f"ray::Publisher {self._name} streams={len(stats.streams)} load={stats.load:.0%}"
        self._host.set_title(title)
        if in_log:
            _log.info("%s", status_line(stats))

    async def drain(self, deadline_s: float) -> PublisherStats:
        self._listeners.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._sessions.drain()
        self._sessions.close_links("the publisher has drained")
        stats = self.stats()
        _log.info("drained: %s", status_line(stats))
        return stats

    def stats(self) -> PublisherStats:
        sessions, gauges, now = self._sessions, self._gauges, time.monotonic()
        return PublisherStats(
            publisher=self._name,
            pid=os.getpid(),
            node=self._host.node,
            unix_path=self._listeners.unix_path,
            tcp_address=self._listeners.tcp_address,
            connected=sessions.connection_keeper.connection is not None,
            draining=sessions.draining,
            streams=sessions.streams,
            rate_per_s=gauges.rate_per_s,
            bytes_per_s=gauges.bytes_per_s,
            load=gauges.load,
            capacity_per_s=gauges.capacity_per_s,
            queued=sessions.queued,
            in_flight=sessions.in_flight,
            batches=gauges.batches,
            acknowledged=gauges.acknowledged,
            duplicates=gauges.duplicates,
            errors=gauges.errors.total(),
            reconnects=max(0, sessions.connection_keeper.opened - 1),
            ack_p50_ms=gauges.ack_ms(0.5, now),
            ack_p99_ms=gauges.ack_ms(0.99, now),
            waiting_ms=1e3 * sessions.waiting_s(now),
            last_error=gauges.last_error,
            errors_by_code=dict(gauges.errors),
            lively=sessions.active_streams,
        )


def status_line(stats: PublisherStats) -> str:
    p99 = "-" if stats.ack_p99_ms is None else f"{stats.ack_p99_ms:.2f}"
    return (
        f"{stats.publisher} connected={stats.connected} streams={len(stats.streams)} load={stats.load:.0%}"
        f" out={stats.rate_per_s:.0f}/s queued={stats.queued} in_flight={stats.in_flight} ack_p99_ms={p99}"
        f" acknowledged={stats.acknowledged} duplicates={stats.duplicates} errors={stats.errors}"
    )
