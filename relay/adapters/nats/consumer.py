"""Reads what NATS stores or forwards into an Audit, without acknowledging or changing anything.

JetStream streams are read by ordered push consumers with flow control, so the server never waits for us.
After a restart of the server reading continues by the stream's sequence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from relay.adapters.nats.open_client import CLIENT_FAILURES, close_client, open_client
from relay.adapters.waiting import wait_until_set
from relay.audit.audit import Audit
from relay.config import NatsConfig
from relay.errors import BusError

RETRY_S = 0.2
REQUEST_TIMEOUT_S = 2.0
CLIENT_NAME = "sluice-audit"

Connect = Callable[[], Awaitable[Client]]


@dataclass(frozen=True, slots=True)
class Source:
    """One stream to read: by JetStream name, or with core NATS by `subject` alone (`jetstream` is empty).

    `side` messages are no events: losses and repairs.
    """

    jetstream: str
    subject: str
    side: bool = False


class AuditConsumer:
    """Feeds `audit` from `sources` between entering and leaving; `connect` makes clients without reconnect.

    Each source has a connection of its own, so that in a flood of one the others are not read late: NATS
    delivers in order. With `from_start` a JetStream stream is read from its first message, else from now on.
    A stream that does not exist yet is waited for.
    """

    def __init__(
        self, connect: Connect, sources: Iterable[Source], audit: Audit, *, from_start: bool
    ) -> None:
        self._readers = [_Reader(connect, source, audit, from_start=from_start) for source in sources]

    async def __aenter__(self) -> Self:
        """Raises BusError if NATS cannot be reached; later failures are retried."""
        try:
            for reader in self._readers:
                await reader.start()
        except CLIENT_FAILURES as error:
            await self._end()
            raise BusError(f"cannot read from NATS: {error}; is it up, and may this user read?") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def caught_up(self, deadline_s: float) -> bool:
        """Whether everything that was stored at the call has been read within the deadline."""
        end = asyncio.get_running_loop().time() + deadline_s
        return all(await asyncio.gather(*(reader.caught_up(end) for reader in self._readers)))

    async def _end(self) -> None:
        await asyncio.gather(*(reader.end() for reader in self._readers))


class _Reader:
    """Reads one source, over one connection after another."""

    def __init__(self, connect: Connect, source: Source, audit: Audit, *, from_start: bool) -> None:
        self._connect = connect
        self._source = source
        self._audit = audit
        self._from_start = from_start
        self._last_seq = 0
        self._progress = asyncio.Event()
        self._ending = asyncio.Event()
        self._client: Client | None = None
        # None until its stream exists.
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._client = await self._connect()
        await self._subscribe()
        self._task = asyncio.create_task(self._follow())

    async def end(self) -> None:
        # Not cancelled: nats-py swallows a cancellation while it flushes, and the task would continue.
        self._ending.set()
        if self._task is not None:
            await self._task
        if self._client is not None:
            await close_client(self._client)

    async def caught_up(self, end: float) -> bool:
        loop = asyncio.get_running_loop()
        goal = await self._goal(end)
        while goal is not None and self._last_seq < goal and loop.time() < end:
            self._progress.clear()
            await wait_until_set(self._progress, end - loop.time())
        return goal is not None and self._last_seq >= goal

    async def _goal(self, end: float) -> int | None:
        """The last sequence to read; None if NATS does not answer before `end`."""
        while asyncio.get_running_loop().time() < end:
            with suppress(*CLIENT_FAILURES):
                if self._client is not None:
                    return await self._last_stored(self._client)
            await self._pause()
        return None

    async def _last_stored(self, client: Client) -> int:
        """0 if the stream does not exist, and for core NATS, once all published before has been read."""
        if self._source.jetstream:
            with suppress(NotFoundError):
                return await _last_seq(client, self._source.jetstream)
            return 0
        await client.flush()
        # nats-py has no event for an empty queue.
        while self._subscription is not None and self._subscription.pending_msgs:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return 0

    async def _follow(self) -> None:
        while not self._ending.is_set():
            if self._client is None or not self._client.is_connected:
                await self._renew()
            elif self._subscription is None:
                with suppress(*CLIENT_FAILURES):
                    await self._subscribe()
            await self._pause()

    async def _renew(self) -> None:
        old, self._client, self._subscription = self._client, None, None
        if old is not None:
            await close_client(old)
        with suppress(*CLIENT_FAILURES):
            self._client = await self._connect()

    async def _pause(self) -> None:
        await wait_until_set(self._ending, RETRY_S)

    async def _subscribe(self) -> None:
        assert self._client is not None
        if not self._source.jetstream:
            self._subscription = await self._client.subscribe(self._source.subject, cb=self._on_message)
            # What is published before the server knows the subscription is not delivered.
            await self._client.flush()
            return
        with suppress(NotFoundError):
            start = await self._start_sequence(self._client)
            self._subscription = await self._client.jetstream(timeout=REQUEST_TIMEOUT_S).subscribe(
                "",
                stream=self._source.jetstream,
                ordered_consumer=True,
                cb=self._on_stored_message,
                config=ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=start),
            )

    async def _start_sequence(self, client: Client) -> int:
        if not self._from_start and not self._last_seq:
            # Fixed now, so that a reconnect before the first message starts at the same sequence.
            self._last_seq = await _last_seq(client, self._source.jetstream)
        return self._last_seq + 1

    async def _on_message(self, message: Msg) -> None:
        self._to_audit(message, time.time_ns())

    def _to_audit(self, message: Msg, now_ns: int) -> None:
        if self._source.side:
            self._audit.side_record_received(message.subject, message.headers, message.data)
        else:
            self._audit.event_received(message.headers, message.data, now_ns)

    async def _on_stored_message(self, message: Msg) -> None:
        now_ns = time.time_ns()
        seq = message.metadata.sequence.stream
        # After a new subscription NATS may deliver messages again; these are no duplicates in the stream.
        if seq > self._last_seq:
            self._last_seq = seq
            self._progress.set()
            self._to_audit(message, now_ns)


async def _last_seq(client: Client, jetstream: str) -> int:
    info = await client.jetstream(timeout=REQUEST_TIMEOUT_S).stream_info(jetstream)
    return int(info.state.last_seq)


def connector(config: NatsConfig) -> Connect:
    """Opens clients to the first of the configured servers that accepts one."""

    async def connect() -> Client:
        *others, last = config.servers
        for server in others:
            with suppress(*CLIENT_FAILURES):
                return await open_client(config, server, CLIENT_NAME)
        return await open_client(config, last, CLIENT_NAME)

    return connect
