"""Reads what NATS holds or passes on into an Audit, without acknowledging or changing anything.

JetStream streams are read by ordered push consumers with flow control, so the server never waits for us, and
across restarts of the server: every stream's sequence says where to go on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from relay.audit import Audit
from relay.config import NatsConfig
from relay.errors import BusError
from relay.nats_client import RawClient
from relay.nats_login import demands_tls, read_login, tls_context

RETRY_S = 0.2
CONNECT_DEADLINE_S = 3.0
CLOSE_DEADLINE_S = 2.0
# What nats-py raises for a connection that is gone, a server that does not answer and one that refuses.
TROUBLES = (nats.errors.Error, OSError, asyncio.TimeoutError)

Connect = Callable[[], Awaitable[Client]]


@dataclass(frozen=True, slots=True)
class Source:
    """One stream to read: by JetStream name, or with core NATS by `subject` alone (`jetstream` is empty)."""

    jetstream: str
    subject: str


class AuditConsumer:
    """Feeds `audit` from `sources` between entering and leaving; `connect` makes a client without reconnect.

    With `from_start` a JetStream stream is read from its first message, else from now on. A stream that does
    not exist yet is waited for.
    """

    def __init__(
        self, connect: Connect, sources: Iterable[Source], audit: Audit, *, from_start: bool
    ) -> None:
        self._connect = connect
        self._audit = audit
        self._progress = asyncio.Event()
        self._readers = [_Reader(source, self._progress, from_start=from_start) for source in sources]
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Raises BusError if NATS cannot be reached; later troubles are ridden out."""
        try:
            self._client = await self._connect()
            await self._subscribe(self._client)
        except TROUBLES as error:
            raise BusError(f"cannot read from NATS: {error}; is it up, and may this user read?") from error
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        # No cancelling: nats-py swallows it while it flushes, and the task would go on.
        self._ending.set()
        await self._task

    async def caught_up(self, deadline_s: float) -> bool:
        """Whether everything that was stored at the call has been read within the deadline."""
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        goals = [(reader, await self._goal(reader, end)) for reader in self._readers]
        while any(reader.last_seq < goal for reader, goal in goals):
            if loop.time() >= end:
                return False
            self._progress.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._progress.wait(), end - loop.time())
        return True

    async def _goal(self, reader: _Reader, end: float) -> int:
        """The last sequence to read, out of reach if NATS does not tell before `end`."""
        while asyncio.get_running_loop().time() < end:
            with suppress(*TROUBLES):
                return await reader.last_stored(self._client)
            await self._pause()
        return sys.maxsize

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), RETRY_S)

    async def _follow(self) -> None:
        while True:
            try:
                await self._serve(self._client)
            finally:
                await _close(self._client)
            if self._ending.is_set() or not await self._reconnect():
                return

    async def _serve(self, client: Client) -> None:
        """Until the connection or the reading is over."""
        while client.is_connected and not self._ending.is_set():
            with suppress(*TROUBLES):
                await self._subscribe(client)
            await self._pause()

    async def _reconnect(self) -> bool:
        """Whether it came to that before the end."""
        while not self._ending.is_set():
            await self._pause()
            with suppress(*TROUBLES):
                self._client = await self._connect()
                for reader in self._readers:
                    reader.subscription = None
                return True
        return False

    async def _subscribe(self, client: Client) -> None:
        for reader in self._readers:
            if reader.subscription is None:
                await reader.subscribe(client, self._audit)


class _Reader:
    """Where one source has been read to; `subscription` is None until its stream exists."""

    def __init__(self, source: Source, progress: asyncio.Event, *, from_start: bool) -> None:
        self.source = source
        self.last_seq = 0
        self.subscription: Subscription | None = None
        self._progress = progress
        self._from_start = from_start

    async def subscribe(self, client: Client, audit: Audit) -> None:
        if not self.source.jetstream:
            self.subscription = await client.subscribe(self.source.subject, cb=self._taker(audit))
            return
        with suppress(NotFoundError):
            start = await self._start(client)
            self.subscription = await client.jetstream().subscribe(
                "",
                stream=self.source.jetstream,
                ordered_consumer=True,
                cb=self._stored_taker(audit),
                config=start,
            )

    async def last_stored(self, client: Client) -> int:
        """0 if the stream does not exist, and for core NATS once all published before has been taken."""
        if self.source.jetstream:
            with suppress(NotFoundError):
                return await _last_seq(client, self.source.jetstream)
            return 0
        await client.flush()
        # nats-py has no event for an empty queue.
        while self.subscription is not None and self.subscription.pending_msgs:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return 0

    async def _start(self, client: Client) -> ConsumerConfig:
        if not self._from_start and not self.last_seq:
            # Fixed now, so that a reconnect before the first message begins at the same place.
            self.last_seq = await _last_seq(client, self.source.jetstream)
        return ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self.last_seq + 1)

    def _taker(self, audit: Audit) -> Callable[[Msg], Awaitable[None]]:
        async def take(message: Msg) -> None:
            audit.take(message.headers, message.data, time.time_ns())

        return take

    def _stored_taker(self, audit: Audit) -> Callable[[Msg], Awaitable[None]]:
        async def take(message: Msg) -> None:
            now_ns = time.time_ns()
            seq = message.metadata.sequence.stream
            # After a new subscription NATS may repeat itself; that is no duplicate in the stream.
            if seq > self.last_seq:
                self.last_seq = seq
                self._progress.set()
                audit.take(message.headers, message.data, now_ns)

        return take


async def _last_seq(client: Client, jetstream: str) -> int:
    info = await client.jetstream().stream_info(jetstream)
    return int(info.state.last_seq)


async def _close(client: Client) -> None:
    """Without waiting for a frozen server to take what nats-py would flush, which matters to nobody here."""
    closing = asyncio.create_task(client.close())
    done, _ = await asyncio.wait([closing], timeout=CLOSE_DEADLINE_S)
    if not done:
        closing.cancel()
    with suppress(asyncio.CancelledError, *TROUBLES):
        await closing


def connector(config: NatsConfig) -> Connect:
    """Makes clients for the first of the configured servers that takes one."""

    async def connect() -> Client:
        *others, last = config.servers
        for server in others:
            with suppress(*TROUBLES):
                return await _client(config, server)
        return await _client(config, last)

    return connect


async def _client(config: NatsConfig, server: str) -> Client:
    login = read_login(config)
    tls = tls_context(config) if demands_tls(config, server) else None
    client = RawClient(demands_tls=tls is not None, public_key=login.public_key)
    try:
        async with asyncio.timeout(CONNECT_DEADLINE_S):
            await client.connect(
                servers=[server],
                name="sluice-audit",
                allow_reconnect=False,
                # 0 would mean for ever.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                tls=tls,
                tls_handshake_first=config.tls_handshake_first,
                error_cb=_ignore,
                **login.options,
            )
    except TROUBLES:
        client.abort()
        raise
    return client


async def _ignore(_: Exception) -> None:
    """What ends a connection is noticed by its end; nats-py would log every trouble with a traceback."""
