"""GET requests to the exchange, on a thread of their own: gaps are rare, and the event loop must not wait.

The standard library's client is used because importing a larger one takes half a second, and a gap holds up
the stream for two seconds at most.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import orjson

from relay.binance.backfill import RestQuery
from relay.errors import RestError, RestRefusedError

TIMEOUT_S = 5.0
# A thousand rows have some 200 kB.
MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_KEY_BYTES = 1024
_RATE_LIMITED = frozenset({418, 429})


class Answer(NamedTuple):
    """`used_weight` is what the address has used in this minute, None where the exchange does not say."""

    rows: Any
    used_weight: int | None


class RestClient:
    """Keeps one connection while it is used; `get` may be called once at a time. Use from one event loop."""

    def __init__(self, base_url: str, api_key_file: Path | None, timeout_s: float = TIMEOUT_S) -> None:
        self._base = urlsplit(base_url)
        self._api_key_file = api_key_file
        self._timeout_s = timeout_s
        self._connection: HTTPConnection | None = None
        self._threads: ThreadPoolExecutor | None = None

    async def get(self, query: RestQuery) -> Answer:
        """Raises RestError if trying again may work, RestRefusedError if not."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rest")
        asking = asyncio.get_running_loop().run_in_executor(self._threads, self._ask, query)
        try:
            # The socket's timeout counts for each read, and a server that sends byte by byte stays within it.
            async with asyncio.timeout(2 * self._timeout_s):
                return await asyncio.shield(asking)
        except TimeoutError:
            raise RestError(f"no whole answer within {2 * self._timeout_s:g} s") from None
        finally:
            if not asking.done():
                self._cut()
                asking.add_done_callback(_forget)

    def interrupt(self) -> None:
        """The request that runs ends with RestError."""
        self._cut()

    def close(self) -> None:
        self._cut()
        if self._threads is not None:
            # Runs after the request that the thread may be working on, which fails as its connection was cut.
            self._threads.submit(self._drop)
            self._threads.shutdown(wait=False)

    def _cut(self) -> None:
        """A read or write that waits on the connection fails at once."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _ask(self, query: RestQuery) -> Answer:
        connection = self._connection or self._connect()
        try:
            connection.request("GET", f"{self._base.path}{query.path}?{urlencode(query.parameters)}",
                               headers=self._headers(query))  # fmt: skip
            response = connection.getresponse()
            body = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, HTTPException) as error:
            self._drop()
            raise RestError(f"no answer from {self._base.netloc}: {error or 'timeout'}") from error
        if response.will_close or len(body) > MAX_ANSWER_BYTES:
            self._drop()
        return _read(response, body, query.used_weight_header)

    def _connect(self) -> HTTPConnection:
        host, port = self._base.hostname or "", self._base.port
        if self._base.scheme == "https":
            context = ssl.create_default_context()
            self._connection = HTTPSConnection(host, port, timeout=self._timeout_s, context=context)
        else:
            self._connection = HTTPConnection(host, port, timeout=self._timeout_s)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _headers(self, query: RestQuery) -> dict[str, str]:
        if not query.with_key or self._api_key_file is None:
            return {}
        return {query.key_header: _read_key(self._api_key_file)}


def _read_key(path: Path) -> str:
    """Read for each use, so that a new key needs no restart."""
    try:
        with path.open("rb") as file:
            key = file.read(MAX_KEY_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RestRefusedError(f"exchange.api_key_file {path} cannot be read: {error}") from error
    if not key.isalnum():
        raise RestRefusedError(f"exchange.api_key_file {path} holds no key of letters and digits")
    return key


def _read(response: HTTPResponse, body: bytes, used_weight_header: str) -> Answer:
    status = response.status
    if status in _RATE_LIMITED:
        after = response.headers.get("Retry-After", "")
        retry_after_s = float(after) if after.isdecimal() else None
        raise RestError(f"REST answered HTTP {status}", retry_after_s, limited=True)
    if status >= 500:
        raise RestError(f"REST answered HTTP {status}")
    if status != 200:
        raise RestRefusedError(f"REST refused with HTTP {status}{_complaint(body)}")
    used = response.headers.get(used_weight_header, "")
    try:
        return Answer(orjson.loads(body), int(used) if used.isdecimal() else None)
    except orjson.JSONDecodeError as error:
        raise RestRefusedError("REST answered with something else than JSON") from error


def _complaint(body: bytes) -> str:
    try:
        fields = orjson.loads(body)
        return f": {str(fields['msg'])[:200]}"
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


def _forget(asking: asyncio.Future[Answer]) -> None:
    """The caller has given up; without this, asyncio logs an exception that was never retrieved."""
    if not asking.cancelled():
        asking.exception()
