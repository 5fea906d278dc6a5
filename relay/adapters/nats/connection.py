"""One connection to NATS at a time: when it ends, the keeper opens a new one, for as long as it takes.

A connection is ended as soon as anything about it is in doubt: after a wrong answer, or none in time. Its
owner then reads from NATS what is stored and sends the rest again. Nothing here knows streams or
acknowledgements.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relay.adapters.nats.client import NoRespondersError, RawClient
from relay.adapters.nats.login import shown_server
from relay.adapters.nats.open_client import CLIENT_FAILURES, CONNECT_DEADLINE_S, open_client
from relay.adapters.nats.reply_tap import ReplyHook
from relay.errors import BusError, ConfigError
from relay.primitives.backoff import Backoff
from relay.publish.chain import NO_RESPONDERS

if TYPE_CHECKING:
    from relay.config import NatsConfig

_log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 1.0
# Part of `_INBOX.>`, which ordinary permissions allow, and narrow enough to be allowed by itself.
INBOX_PREFIX = "_INBOX.sluice"
# The cap bounds how long a server that is back stays unnoticed.
RETRY_BASE_S, RETRY_CAP_S = 0.05, 2.0
# A connection that lasts for less does not reset the backoff.
STABLE_S = 5.0


class NatsConnection:
    """One open connection; `closed` resolves to the reason of its end and never raises.

    What is written or requested after the end is discarded.
    """

    def __init__(self, client: RawClient, server: str) -> None:
        self.server = server
        self.max_payload = client.max_payload
        version = client.connected_server_version
        self.version = (version.major, version.minor, version.patch)
        self.inbox = client.new_inbox()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answered_at = time.monotonic()
        self._client = client
        self._pings: deque[float] = deque()

    @property
    def unsent_bytes(self) -> int:
        return 0 if self.closed.done() else self._client.unsent_bytes

    async def take_replies(self, on_reply: ReplyHook) -> None:
        """Answers to `<inbox>.*.*` go to `on_reply`, synchronously. Raises BusError."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._client.take_replies(f"{self.inbox}.*.*", on_reply)
        except CLIENT_FAILURES as error:
            raise BusError(f"{self.server} took no subscription: {_cause(error)}") from error

    def write(self, data: bytes) -> None:
        """Finished protocol bytes."""
        if not self.closed.done():
            self._client.write(data)

    def ping(self, then: Callable[[], None] = lambda: None) -> None:
        """`then` is called once the server has read all that was written before; never, if the connection
        ends."""
        if not self.closed.done():
            self._pings.append(time.monotonic())
            self._client.ping(_Pong(self, then))

    async def flush(self) -> None:
        """Wait until the server has read all that was written. Raises BusError after REQUEST_TIMEOUT_S."""
        has_read = asyncio.Event()
        self.ping(has_read.set)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await has_read.wait()
        except TimeoutError as error:
            raise BusError(f"{self.server} does not answer") from error

    def ponged(self) -> None:
        self._pings.popleft()
        self._answered_at = time.monotonic()

    def watch(self, now: float, silence_s: float) -> None:
        """Call it a few times a second: ends the connection if the server does not answer a ping in time."""
        if self.closed.done():
            return
        if self._pings and now - self._pings[0] > silence_s:
            self.abort(f"no answer for {silence_s:g} s")
        elif not self._pings and now - self._answered_at > silence_s / 4:
            self.ping()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> bytes:
        """The body of the answer. Raises BusError if there is none in time, or no responder."""
        try:
            answer = await self._client.request(subject, payload, timeout=timeout_s, headers=headers)
        except NoRespondersError as error:
            raise BusError(f"nobody answers {subject} ({NO_RESPONDERS}); is JetStream enabled?") from error
        except CLIENT_FAILURES as error:
            raise BusError(f"no answer to {subject}: {_cause(error)}") from error
        return answer.data

    def abort(self, reason: str) -> None:
        self.mark_closed(reason)
        self._client.abort()

    def mark_closed(self, reason: str) -> None:
        """The connection is over; only its first reason counts."""
        if not self.closed.done():
            self.closed.set_result(reason)

    async def close(self) -> None:
        """Flush and close, then abort after CLOSE_TIMEOUT_S: a frozen server never accepts what is unsent."""
        self.mark_closed("closed")
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._client.close()
        except CLIENT_FAILURES:
            self._client.abort()


@dataclass(slots=True)
class _Pong:
    """Stands in for a future, so that `then` runs at once and not in the next iteration of the loop."""

    connection: NatsConnection
    then: Callable[[], None]

    def set_result(self, _: bool, /) -> None:
        self.connection.ponged()
        self.then()


class ConnectionKeeper:
    """Keeps a connection to one of the servers for as long as `run` runs.

    `on_open` and `on_lost` are called in turns; `on_reply` with each answer to `<inbox>.*.*`; `on_error` with
    the reason why a connection could not be opened, and with each error that a server reports.
    """

    def __init__(
        self,
        config: NatsConfig,
        name: str,
        *,
        on_open: Callable[[NatsConnection], None],
        on_lost: Callable[[str], None],
        on_reply: ReplyHook,
        on_error: Callable[[str], None],
    ) -> None:
        self.connection: NatsConnection | None = None
        self.opened = 0
        self._config = config
        self._name = name
        self._on_open = on_open
        self._on_lost = on_lost
        self._on_reply = on_reply
        self._on_error = on_error

    async def run(self) -> None:
        backoff = Backoff(RETRY_BASE_S, RETRY_CAP_S, random.Random())
        servers = deque(self._config.servers)
        while True:
            try:
                connection = await self._connect(servers[0])
            except BusError as error:
                self._on_error(str(error))
                servers.rotate(-1)
                await asyncio.sleep(backoff.next_s())
                continue
            opened_at = time.monotonic()
            await self._serve(connection)
            if time.monotonic() - opened_at > STABLE_S:
                backoff.reset()
            # The server itself may be at fault, so another one comes first.
            servers.rotate(-1)
            await asyncio.sleep(backoff.next_s())

    async def _connect(self, server: str) -> NatsConnection:
        connection = await connect(self._config, server, self._name, self._on_error)
        try:
            await connection.take_replies(self._on_reply)
        except (BusError, asyncio.CancelledError):
            connection.abort("not subscribed")
            raise
        return connection

    async def _serve(self, connection: NatsConnection) -> None:
        _log.info("connected to NATS at %s", connection.server)
        self.connection = connection
        self.opened += 1
        self._on_open(connection)
        reason = "the publisher ended"
        try:
            reason = await connection.closed
        finally:
            self.connection = None
            self._on_lost(reason)
            await connection.close()
        _log.warning("the connection to NATS at %s ended: %s", connection.server, reason)


class _ClientEvents:
    """What nats-py reports about one client, before and after it is connected."""

    def __init__(self, on_error: Callable[[str], None]) -> None:
        self.connection: NatsConnection | None = None
        self.last = ""
        self._on_error = on_error

    async def complained(self, error: Exception) -> None:
        self.last = _cause(error)
        if self.connection is not None and not self.connection.closed.done():
            self._on_error(self.last)

    async def closed(self) -> None:
        if self.connection is not None:
            self.connection.mark_closed(self.last or "closed by the server")


async def connect(
    config: NatsConfig,
    server: str,
    name: str,
    on_error: Callable[[str], None],
    *,
    deadline_s: float = CONNECT_DEADLINE_S,
) -> NatsConnection:
    """Raises BusError within `deadline_s`; its text names the server without its password.

    A cancellation takes effect once the attempt has ended: nats-py, cancelled before, ignores it or leaves
    the socket open.
    """
    attempt = asyncio.ensure_future(_connect(config, server, name, on_error, deadline_s))
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        with contextlib.suppress(BusError):
            (await attempt).abort("cancelled")
        raise


async def connect_to_any(config: NatsConfig, name: str, on_error: Callable[[str], None]) -> NatsConnection:
    """To the first server that accepts a connection. Raises the BusError of the last one if none does."""
    failure = BusError("no NATS server is configured")
    for server in config.servers:
        try:
            return await connect(config, server, name, on_error)
        except BusError as error:
            failure = error
    raise failure


async def _connect(
    config: NatsConfig, server: str, name: str, on_error: Callable[[str], None], deadline_s: float
) -> NatsConnection:
    events = _ClientEvents(on_error)
    where = shown_server(server)
    try:
        client = await open_client(
            config,
            server,
            name,
            deadline_s=deadline_s,
            inbox_prefix=INBOX_PREFIX,
            on_error=events.complained,
            on_closed=events.closed,
        )
    except ConfigError as error:
        raise BusError(f"cannot connect to NATS at {where}: {error}") from error
    except CLIENT_FAILURES as error:
        raise BusError(f"cannot connect to NATS at {where}: {events.last or _cause(error)}") from error
    events.connection = NatsConnection(client, where)
    return events.connection


def _cause(error: BaseException) -> str:
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)
    return str(error).removeprefix("nats: ") or type(error).__name__
