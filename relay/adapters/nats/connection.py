"""NATS: one connection at a time, made anew for ever, with no reconnecting inside it.

A connection is over as soon as anything about it is in doubt; what was unacknowledged on it is looked up and
sent again by its owner. Nothing here knows streams or acknowledgements.
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

from relay.adapters.nats.client import Error, NoRespondersError, RawClient
from relay.adapters.nats.login import demands_tls, read_login, shown_server, tls_context
from relay.adapters.nats.reply_tap import ReplyHook
from relay.errors import BusError, ConfigError
from relay.primitives.backoff import Backoff
from relay.publish.chain import NO_RESPONDERS

if TYPE_CHECKING:
    from relay.config import NatsConfig

_log = logging.getLogger(__name__)

CONNECT_DEADLINE_S = 3.0
REQUEST_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 1.0
# Below `_INBOX.>`, which ordinary permissions allow, and narrow enough to be allowed alone.
INBOX_PREFIX = "_INBOX.sluice"
# A server that comes back is found within 2 s, whatever the jitter.
RETRY_BASE_S, RETRY_CAP_S = 0.05, 2.0
# A connection that lives for less is no sign that the trouble is over.
STABLE_S = 5.0
_FAILURES = (OSError, TimeoutError, Error)


class NatsConnection:
    """One connection, from its birth to its end; `closed` resolves to the reason and never raises.

    What is written or asked after the end is lost.
    """

    def __init__(self, client: RawClient, server: str) -> None:
        self.server = server
        self.max_payload = client.max_payload
        version = client.connected_server_version
        self.version = (version.major, version.minor, version.patch)
        self.inbox = client.new_inbox()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._heard_at = time.monotonic()
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
        except _FAILURES as error:
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
        """Until the server has read all that was written before. Raises BusError if that takes too long."""
        taken = asyncio.Event()
        self.ping(taken.set)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await taken.wait()
        except TimeoutError as error:
            raise BusError(f"{self.server} does not answer") from error

    def ponged(self) -> None:
        self._pings.popleft()
        self._heard_at = time.monotonic()

    def watch(self, now: float, silence_s: float) -> None:
        """Call it a few times a second: ends a connection whose server does not answer a ping in time."""
        if self.closed.done():
            return
        if self._pings and now - self._pings[0] > silence_s:
            self.abort(f"no answer for {silence_s:g} s")
        elif not self._pings and now - self._heard_at > silence_s / 4:
            self.ping()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> bytes:
        """Raises BusError without an answer in time, or if nobody is there to answer."""
        try:
            answer = await self._client.request(subject, payload, timeout=timeout_s, headers=headers)
        except NoRespondersError as error:
            raise BusError(f"nobody answers {subject} ({NO_RESPONDERS}); is JetStream enabled?") from error
        except _FAILURES as error:
            raise BusError(f"no answer to {subject}: {_cause(error)}") from error
        return answer.data

    def abort(self, reason: str) -> None:
        self.settle(reason)
        self._client.abort()

    def settle(self, reason: str) -> None:
        """The connection is over; only its first reason counts."""
        if not self.closed.done():
            self.closed.set_result(reason)

    async def close(self) -> None:
        """Leave in order, but not for ever: a frozen server would never take what is unsent."""
        self.settle("closed")
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._client.close()
        except _FAILURES:
            self._client.abort()


@dataclass(slots=True)
class _Pong:
    """In the place of a future: what waits for it need not wait for another turn of the loop."""

    connection: NatsConnection
    then: Callable[[], None]

    def set_result(self, _: bool, /) -> None:
        self.connection.ponged()
        self.then()


class ConnectionKeeper:
    """Keeps a connection to one of the servers for as long as `run` runs.

    `on_open` and `on_lost` come in turns; `on_reply` gets the answers to `<inbox>.*.*`; `on_error` hears why
    a connection could not be made and what a server complains about.
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
            born_at = time.monotonic()
            await self._serve(connection)
            if time.monotonic() - born_at > STABLE_S:
                backoff.reset()
            # What ended this connection may hold for its server: ask another one first.
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
            self.connection.settle(self.last or "closed by the server")


async def connect(
    config: NatsConfig,
    server: str,
    name: str,
    on_error: Callable[[str], None],
    *,
    deadline_s: float = CONNECT_DEADLINE_S,
) -> NatsConnection:
    """Raises BusError within `deadline_s`; its text names the server without its password.

    A cancellation waits for the outcome: nats-py would forget it, or forget the open socket, in the middle.
    """
    attempt = asyncio.ensure_future(_connect(config, server, name, on_error, deadline_s))
    try:
        return await asyncio.shield(attempt)
    except asyncio.CancelledError:
        with contextlib.suppress(BusError):
            (await attempt).abort("cancelled")
        raise


async def connect_to_any(config: NatsConfig, name: str, on_error: Callable[[str], None]) -> NatsConnection:
    """To the first server that can be had. Raises BusError with what the last one said."""
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
    ear = _ClientEvents(on_error)
    where = shown_server(server)
    try:
        login = read_login(config)
        tls = tls_context(config) if demands_tls(config, server) else None
    except ConfigError as error:
        raise BusError(f"cannot connect to NATS at {where}: {error}") from error
    client = RawClient(demands_tls=tls is not None, public_key=login.public_key)
    try:
        async with asyncio.timeout(deadline_s):
            await client.connect(
                servers=[server],
                name=name,
                allow_reconnect=False,
                # With 0 it would try for ever; it tries twice, at once, and waiting is done by the caller.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                tls=tls,
                tls_handshake_first=config.tls_handshake_first,
                inbox_prefix=INBOX_PREFIX,
                error_cb=ear.complained,
                closed_cb=ear.closed,
                **login.options,
            )
    except _FAILURES as error:
        client.abort()
        raise BusError(f"cannot connect to NATS at {where}: {ear.last or _cause(error)}") from error
    ear.connection = NatsConnection(client, where)
    return ear.connection


def _cause(error: BaseException) -> str:
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)
    return str(error).removeprefix("nats: ") or type(error).__name__
