"""The status page's server, on a thread of its own in the controller's process; neither waits for the other.

What a request may do is decided in relay/observability/page_requests.py; here it is read, done and answered.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aiohttp import web

from relay.config import PageConfig
from relay.config.listen_address import Listen, listen, url
from relay.errors import SluiceError, UsageError
from relay.model.stats import Health, PageStatus, RelayStatus, ScaleStatus
from relay.observability import page_requests
from relay.observability.page_requests import (
    MAX_BODY_BYTES,
    MAX_CONNECTIONS,
    MAX_LINE_BYTES,
    MAX_TOKEN_BYTES,
    Command,
    DrainPublisher,
    HttpResponse,
    Request,
    ResumeStream,
    Scale,
    Show,
    StopStream,
    Unlock,
    View,
    attributed,
    health_answer,
    page_answer,
    refusal,
    route,
    safe_headers,
    usable_token,
)
from relay.observability.status_json import encoded

_log = logging.getLogger(__name__)

HTML_FILE = Path(page_requests.__file__).with_name("page.html")
RETRY_S = 5.0
# Starting takes milliseconds; this is for a machine that is very short of CPU.
START_S = 5.0
IDLE_S = 30.0
# For answers that are still being written. aiohttp would wait without limit at 0.
CLOSE_S = 0.2


class ControllerApi(Protocol):
    """What the page asks the controller for; each may be called from any thread."""

    def status(self) -> RelayStatus: ...

    def health(self) -> Health: ...

    def history(self, after: int) -> bytes: ...

    def scale(self, count: int | None, who: str) -> ScaleStatus: ...

    def drain_publisher(self, name: str, who: str) -> None: ...

    def stop_stream(self, stream: str, who: str) -> str: ...

    def resume_stream(self, stream: str, who: str) -> str: ...


@dataclass(frozen=True, slots=True)
class _Wanted:
    config: PageConfig
    token_file: Path | None


class PageSupervisor:
    """Keeps a PageServer running where the configuration wants one, and retries. Use from one thread.

    `status` is None while no page is served; `problem` says why, if one should be.
    """

    def __init__(self, desk: ControllerApi) -> None:
        self.status: PageStatus | None = None
        self.problem = ""
        self._api = desk
        self._wanted: _Wanted | None = None
        self._server: PageServer | None = None
        self._retry_at = 0.0

    def keep(self, config: PageConfig, token_file: Path | None, now: float) -> None:
        wanted = _Wanted(config, token_file)
        if wanted != self._wanted:
            self.close()
            self._wanted, self._retry_at = wanted, now
        elif self._server is not None and not self._server.alive:
            self.close()
        where = listen(config.listen)
        if self._server is None and where is not None and now >= self._retry_at:
            self._start(where, wanted, now)

    def _start(self, where: Listen, wanted: _Wanted, now: float) -> None:
        try:
            self._server = PageServer(self._api, where, wanted.config.names, wanted.token_file)
        except OSError as error:
            self._retry_at = now + RETRY_S
            reason = error.strerror or error
            self.problem = f"the status page cannot listen on {wanted.config.listen}: {reason}"
            return
        self.problem = ""
        token_file = str(wanted.token_file) if wanted.token_file else None
        self.status = PageStatus(url=self._server.url, token_file=token_file)
        _log.info("status page: %s", self._server.url)

    def close(self) -> None:
        self.status, self.problem = None, ""
        if self._server is not None:
            self._server.close()
            self._server = None


class PageServer:
    """Listens once it is made; raises OSError where it cannot."""

    def __init__(
        self, desk: ControllerApi, where: Listen, names: tuple[str, ...], token_file: Path | None
    ) -> None:
        self._api = desk
        self._names = names
        self._token_file = token_file
        self._page = page_answer(HTML_FILE.read_bytes())
        listener = _listening(where)
        host, port = listener.getsockname()[:2]
        self.url = url(host, port)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(listener, started), name="page", daemon=True)
        self._thread.start()
        started.result(START_S)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)

    def _run(self, listener: socket.socket, started: Future[None]) -> None:
        """A failure ends this thread only, and PageSupervisor starts another server."""
        try:
            self._loop.run_until_complete(self._serve(listener, started))
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _serve(self, listener: socket.socket, started: Future[None]) -> None:
        server = web.Server(
            self._handle,
            access_log=None,
            keepalive_timeout=IDLE_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=64,
        )

        def protocol() -> asyncio.BaseProtocol:
            return server() if len(server.connections) < MAX_CONNECTIONS else _RefuseConnection()

        listening = await self._loop.create_server(protocol, sock=listener)
        started.set_result(None)
        await self._stop.wait()
        listening.close()
        await server.shutdown(CLOSE_S)
        # The transports' last callbacks run in the next iteration of the loop.
        await asyncio.sleep(0)

    async def _handle(self, asked: web.BaseRequest) -> web.StreamResponse:
        request = await _read(asked)
        answer = (
            request if isinstance(request, HttpResponse) else await self._answer(request, asked.remote or "")
        )
        return web.Response(status=answer.status, body=answer.body, headers=safe_headers(answer))

    async def _answer(self, request: Request, address: str) -> HttpResponse:
        decided = route(request, self._names, self._token())
        if isinstance(decided, HttpResponse):
            return decided
        try:
            if isinstance(decided, Show):
                return self._show(decided)
            return await asyncio.to_thread(self._act, decided, address)
        except UsageError as error:
            return refusal(409, str(error))
        except SluiceError as error:
            return refusal(503, str(error))

    def _show(self, show: Show) -> HttpResponse:
        match show.view:
            case View.PAGE:
                return self._page
            case View.STATUS:
                return HttpResponse(200, encoded(self._api.status()))
            case View.HISTORY:
                return HttpResponse(200, self._api.history(show.after))
            case View.READY:
                return health_answer(View.READY, self._api.health().not_ready)
            case View.HEALTHY:
                return health_answer(View.HEALTHY, self._api.health().unhealthy)

    def _act(self, command: Command, address: str) -> HttpResponse:
        who = attributed(command.who, address)
        match command:
            case Scale(count):
                self._api.scale(count, who)
            case DrainPublisher(name):
                self._api.drain_publisher(name, who)
            case StopStream(key):
                self._api.stop_stream(key, who)
            case ResumeStream(key):
                self._api.resume_stream(key, who)
            case Unlock():
                pass
        return HttpResponse(200, b'{"done":true}')

    def _token(self) -> bytes | None:
        """Read for each request: a mounted secret may change."""
        if self._token_file is None:
            return None
        try:
            with self._token_file.open("rb") as file:
                return usable_token(file.read(MAX_TOKEN_BYTES + 2))
        except OSError as error:
            _log.warning("%s cannot be read: %s", self._token_file, error.strerror)
            return None


class _RefuseConnection(asyncio.Protocol):
    """Closes a connection beyond MAX_CONNECTIONS."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _listening(where: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    try:
        return socket.create_server((where.host, where.port), family=family)
    except OSError:
        if not where.fallback:
            raise
    return socket.create_server((where.host, 0), family=family)


async def _read(asked: web.BaseRequest) -> Request | HttpResponse:
    """An HttpResponse refuses a body that is too long."""
    if (asked.content_length or 0) > MAX_BODY_BYTES:
        return _too_long(asked)
    body = bytearray()
    async for part in asked.content.iter_any():
        body += part
        if len(body) > MAX_BODY_BYTES:
            return _too_long(asked)
    headers = asked.headers
    return Request(
        method=asked.method,
        path=asked.path,
        query=dict(asked.query),
        host=headers.get("Host", ""),
        origin=headers.get("Origin", ""),
        content_type=headers.get("Content-Type", ""),
        authorization=headers.get("Authorization", ""),
        body=bytes(body),
    )


def _too_long(asked: web.BaseRequest) -> HttpResponse:
    return refusal(413, f"the body is longer than {MAX_BODY_BYTES} bytes", Connection="close")
