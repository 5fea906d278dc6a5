"""The simulated exchange as a server: WebSocket, REST and its own controls on one port."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from http import HTTPStatus
from types import TracebackType
from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from simulator import controls
from simulator.client import Client, Socket
from simulator.handshake_limits import HANG, RESET, Refusal
from simulator.operations import Operations
from simulator.rest import Rest, RestAnswer
from simulator.settings import ExchangeSettings
from simulator.subscriptions import parse_target

_log = logging.getLogger(__name__)


class ExchangeServer(Operations):
    """Serves while its context is open; everything here is called from the loop that opened it.

    `url` is the WebSocket base, `rest_url` the HTTP base of the same port.
    """

    def __init__(self, settings: ExchangeSettings) -> None:
        super().__init__(settings)
        self._rest = Rest(settings.venue, self, settings.weight_limit)
        self._port = 0

    async def __aenter__(self) -> Self:
        self._closing = asyncio.Event()
        self._server: Server = await serve(
            self._serve_connection,
            self.settings.host,
            self.settings.port,
            create_connection=Socket,
            process_request=self._process_request,
            compression=None,
            open_timeout=None,
            ping_interval=None,
            close_timeout=self.settings.close_timeout_s,
            write_limit=self.settings.write_high_bytes,
            server_header=None,
            logger=_log,
        )
        self._port = self._server.sockets[0].getsockname()[1]
        self._pumping = asyncio.create_task(self._pump.run(), name="exchange-pump")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._pumping.cancel()
        for client in list(self.clients):
            # The library would wait for ever on a client that does not read.
            if client.paused or not client.open:
                client.abort()
        self._server.close()
        await self._server.wait_closed()
        self.end_recording()
        await asyncio.wait([self._pumping])
        if not self._pumping.cancelled():
            self._pumping.result()

    @property
    def url(self) -> str:
        return f"ws://{self.settings.host}:{self._port}"

    @property
    def rest_url(self) -> str:
        return f"http://{self.settings.host}:{self._port}"

    async def serve_forever(self) -> None:
        """Until cancelled; a failure of the pump ends it too."""
        await asyncio.shield(self._pumping)

    async def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        """Answer plain HTTP; None continues with the WebSocket handshake."""
        now_ms = time.time_ns() // 1_000_000
        if request.path.startswith(controls.PREFIX):
            return _response(await controls.answer(self, request.method, request.path))
        if self._rest.serves(request.path):
            refusal = self.rest_limiter.admit(self._pump.now_s())
            if refusal is not None:
                return await self._refused(socket, refusal)
            return _response(self._rest.answer(request.path, request.headers.get("X-MBX-APIKEY"), now_ms))
        if parse_target(self.settings.venue, request.path) is None:
            return _response(RestAnswer(404, b'{"error":"no such path"}'))
        refusal = self.handshake_limiter.admit(self._pump.now_s())
        return await self._refused(socket, refusal) if refusal else None

    async def _refused(self, socket: ServerConnection, refusal: Refusal) -> Response:
        if refusal.how == HANG:
            await self._closing.wait()
        if refusal.how in (HANG, RESET):
            socket.transport.abort()
            return _response(RestAnswer(503, b""))
        wait = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
        return _response(RestAnswer(int(refusal.how), b'{"error":"refused"}', wait))

    async def _serve_connection(self, connection: ServerConnection) -> None:
        """One WebSocket connection, from handshake to end."""
        assert isinstance(connection, Socket) and connection.request is not None
        target = parse_target(self.settings.venue, connection.request.path)
        assert target is not None, connection.request.path
        client = Client(connection, target, self.settings, self._pump.wake)
        self.clients[client] = self._pump.now_s()
        try:
            self._attach(client, target.names)
            async for message in connection:
                self._control(client, message)
        except ConnectionClosed:
            _log.debug("closed without a Close frame: %s", connection.request.path)
        finally:
            client.end()
            del self.clients[client]

    def _control(self, client: Client, message: str | bytes) -> None:
        answer = client.subscriptions.answer(message)
        client.send_text(answer.text)
        for name in answer.removed:
            client.unsubscribe(name)
        self._attach(client, answer.added)

    def _attach(self, client: Client, names: tuple[str, ...]) -> None:
        now_s = self._pump.now_s()
        for name in names:
            if self.catalog.has_data(name, client.target.route):
                client.subscribe(self.catalog.ensure(name, now_s))
                self.catalog.subscribed(name, now_s)
            else:
                _log.warning("%s stays silent on %r: no such stream here", name, client.target.route or "/")
        self._pump.wake()


def _response(answer: RestAnswer) -> Response:
    status = HTTPStatus(answer.status)
    headers = Headers(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(answer.body)),
            "Connection": "close",
            **answer.headers,
        }
    )
    return Response(status.value, status.phrase, headers, answer.body)


async def run_exchange(settings: ExchangeSettings) -> None:
    """Serve until cancelled; print the URL on one line once connections are accepted.

    Meant for a process of its own, best under uvloop.
    """
    async with ExchangeServer(settings) as exchange:
        print(exchange.url, flush=True)
        # These objects live until the end; a collection would traverse them in the middle of a burst
        # otherwise.
        gc.freeze()
        await exchange.serve_forever()
