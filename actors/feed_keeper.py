"""Keeps one stream's WebSocket connected, for ever: back-off, first data, pausing, and why it ended."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from relay.backoff import Backoff
from relay.errors import FeedError
from relay.feed import FeedConnection, open_feed

_log = logging.getLogger(__name__)

BACKOFF_BASE_S = 0.25
# Ten streams that retry for ever at full jitter below this cap make 200 attempts in 5 minutes; Binance
# allows an address 300.
BACKOFF_CAP_S = 30.0


class FeedKeeper:
    """`on_payloads(payloads, recv_ns)` gets every read; `on_disconnected()` every end of a connection.

    Only data proves a stream: `delivering` turns true, and the back-off starts anew, when the owner calls
    `delivered`. `subscribed_at_ns` and `first_data_at_ns` are Unix times of the first of all connections, 0
    before.
    """

    def __init__(
        self,
        url: str,
        on_payloads: Callable[[list[bytes], int], None],
        on_disconnected: Callable[[], None],
    ) -> None:
        self.delivering = False
        self.paused = False
        self.reconnects = 0
        self.last_error = ""
        self.last_data_at: float | None = None
        self.subscribed_at_ns = 0
        self.first_data_at_ns = 0
        self._url = url
        self._on_payloads = on_payloads
        self._on_disconnected = on_disconnected
        self._backoff = Backoff(BACKOFF_BASE_S, BACKOFF_CAP_S, random.Random())
        self._connection: FeedConnection | None = None
        self._at_once = False

    async def run(self) -> None:
        while True:
            wait_s = await self._one_connection()
            self.reconnects += 1
            await asyncio.sleep(wait_s)

    async def _one_connection(self) -> float:
        """Returns how long to wait before the next."""
        try:
            self._connection = await open_feed(self._url, self._on_payloads)
            self.subscribed_at_ns = self.subscribed_at_ns or time.time_ns()
            if self.paused:
                self._connection.pause()
            # Not awaited itself: cancelling this task must not cancel the connection's own future.
            await asyncio.wait({self._connection.closed})
            error = self._connection.closed.result()
        except FeedError as refused:
            error = refused
        self.last_error = str(error)
        if self.delivering:
            self.delivering = False
            self._on_disconnected()
        self._connection = None
        at_once, self._at_once = self._at_once, False
        wait_s = 0.0 if at_once else max(self._backoff.next_s(), error.retry_after_s or 0.0)
        _log.warning("feed ended: %s; next attempt in %.2f s", error, wait_s)
        return wait_s

    def delivered(self) -> None:
        """An event was accepted from this connection."""
        self.last_data_at = time.monotonic()
        if not self.delivering:
            self.delivering = True
            self.first_data_at_ns = self.first_data_at_ns or time.time_ns()
            self._backoff.reset()
            _log.info("first data from %s", self._url)

    def check(self, now: float) -> None:
        if self._connection is not None and not self.paused:
            self._connection.check(now)

    def pause(self) -> None:
        if not self.paused:
            self.paused = True
            if self._connection is not None:
                self._connection.pause()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            if self._connection is not None:
                self._connection.resume()

    def renew(self, reason: str) -> None:
        """The exchange is about to end this connection: take a new one at once."""
        self._at_once = True
        self.close(reason)

    def close(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.close(reason)
