"""Opens and closes one nats-py client, without reconnecting inside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from relay.adapters.nats.client import Client, Error, RawClient
from relay.adapters.nats.login import demands_tls, read_login, tls_context
from relay.config import NatsConfig

CONNECT_DEADLINE_S = 3.0
CLOSE_DEADLINE_S = 2.0
DEFAULT_INBOX_PREFIX = "_INBOX"
# What nats-py raises for a connection that has ended, a server that does not answer and one that refuses.
CLIENT_FAILURES = (OSError, TimeoutError, Error)


async def _ignore(_: Exception) -> None:
    """The end of a connection is noticed anyway; by default nats-py logs each error with a traceback."""


async def open_client(
    config: NatsConfig,
    server: str,
    name: str,
    *,
    deadline_s: float = CONNECT_DEADLINE_S,
    inbox_prefix: str = DEFAULT_INBOX_PREFIX,
    on_error: Callable[[Exception], Awaitable[None]] = _ignore,
    on_closed: Callable[[], Awaitable[None]] | None = None,
) -> RawClient:
    """Connect to one server within `deadline_s`. Raises one of CLIENT_FAILURES, or ConfigError for a login
    that cannot be read."""
    login = read_login(config)
    tls = tls_context(config) if demands_tls(config, server) else None
    client = RawClient(demands_tls=tls is not None, public_key=login.public_key)
    try:
        async with asyncio.timeout(deadline_s):
            await client.connect(
                servers=[server],
                name=name,
                allow_reconnect=False,
                # nats-py takes 0 for "without end". With 1 it tries twice, at once; callers wait in between.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                tls=tls,
                tls_handshake_first=config.tls_handshake_first,
                inbox_prefix=inbox_prefix,
                error_cb=on_error,
                closed_cb=on_closed,
                **login.options,
            )
    except CLIENT_FAILURES:
        client.abort()
        raise
    return client


async def close_client(client: Client) -> None:
    """Close a client that only reads, within CLOSE_DEADLINE_S: nats-py would wait for a frozen server to
    accept what it flushes, which is not needed."""
    closing = asyncio.create_task(client.close())
    done, _ = await asyncio.wait([closing], timeout=CLOSE_DEADLINE_S)
    if not done:
        closing.cancel()
    with suppress(asyncio.CancelledError, *CLIENT_FAILURES):
        await closing
