"""One connection to an exchange, against real and hostile servers on loopback."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import pytest
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from relay.adapters.websocket import (
    MESSAGES_PER_S,
    PONG_TIMEOUT_S,
    QUIET_S,
    FeedConnection,
    open_feed,
)
from relay.adapters.websocket_frames import SLOW_FRAMES_PER_S
from relay.errors import FeedError

Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Sink:
    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.reads = 0
        self.changed = asyncio.Event()

    def __call__(self, payloads: list[bytes], recv_ns: int) -> None:
        assert recv_ns > 0
        self.payloads += payloads
        self.reads += 1
        self.changed.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.payloads) < count:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def library_server(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws/x"


@asynccontextmanager
async def raw_server(after_handshake: Raw) -> AsyncIterator[str]:
    """Shakes hands by the book, then does what the test wants with the naked socket."""

    handlers: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        protocol = ServerProtocol()
        while not (events := protocol.events_received()):
            protocol.receive_data(await reader.read(65536))
        assert isinstance(events[0], Request)
        protocol.send_response(protocol.accept(events[0]))
        writer.write(b"".join(protocol.data_to_send()))
        await after_handshake(reader, writer)
        await hang_up_after(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws/x"
        async with asyncio.timeout(5):
            await asyncio.gather(*handlers)


async def hang_up_after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        await reader.read()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def text(payload: bytes, *, opcode: int = 0x1, fin: bool = True) -> bytes:
    assert len(payload) < 126
    return bytes([(0x80 if fin else 0) | opcode, len(payload)]) + payload


async def ended(connection: FeedConnection) -> str:
    async with asyncio.timeout(5):
        return str(await connection.closed)


def test_all_messages_arrive_whole_and_in_order() -> None:
    async def main() -> None:
        async def handler(server: ServerConnection) -> None:
            for number in range(500):
                await server.send(f"message {number}")
            await server.wait_closed()

        sink = Sink()
        async with library_server(handler) as url:
            connection = await open_feed(url, sink)
            await sink.wait_for(500)
            connection.close("enough")
            assert await ended(connection) == "enough"
        assert sink.payloads == [f"message {number}".encode() for number in range(500)]

    asyncio.run(main())


def test_messages_of_one_read_come_together() -> None:
    async def main() -> None:
        async def burst(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(text(b"a") + text(b"b") + text(b"c", fin=False) + text(b"d", opcode=0))

        sink = Sink()
        async with raw_server(burst) as url:
            connection = await open_feed(url, sink)
            await sink.wait_for(3)
            connection.close("enough")
        assert sink.payloads == [b"a", b"b", b"cd"]
        assert sink.reads == 1

    asyncio.run(main())


def test_a_ping_is_answered_with_its_payload() -> None:
    async def main() -> None:
        answered: list[bool] = []

        async def handler(server: ServerConnection) -> None:
            waiter = await server.ping(b"1723111111")
            await waiter
            answered.append(True)
            await server.send("done")

        sink = Sink()
        async with library_server(handler) as url:
            connection = await open_feed(url, sink)
            await sink.wait_for(1)
            connection.close("enough")
        assert answered == [True]

    asyncio.run(main())


def test_a_flood_of_pings_gets_four_pongs_a_second_and_the_newest_later() -> None:
    """Binance cuts a client that sends more than five messages in a second."""

    async def main() -> None:
        pongs: list[bytes] = []
        changed = asyncio.Event()

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"".join(text(b"%02d" % number, opcode=0x9) for number in range(50)) + text(b"end"))
            while True:
                head = await reader.readexactly(6)
                assert head[:2] == b"\x8a\x82"
                masked = await reader.readexactly(2)
                pongs.append(bytes(byte ^ key for byte, key in zip(masked, head[2:], strict=False)))
                changed.set()
                if pongs[-1] == b"49":
                    return

        async def pongs_are(count: int) -> None:
            async with asyncio.timeout(5):
                while len(pongs) < count:
                    changed.clear()
                    await changed.wait()

        sink = Sink()
        async with raw_server(flood) as url:
            connection = await open_feed(url, sink)
            await sink.wait_for(1)
            await pongs_are(MESSAGES_PER_S)
            now = time.monotonic()
            connection.check(now)
            connection.check(now + 1.0)
            await pongs_are(MESSAGES_PER_S + 1)
            connection.close("enough")
        assert pongs == [b"00", b"01", b"02", b"03", b"49"]

    asyncio.run(main())


def test_a_refusal_names_the_status_and_when_to_come_back() -> None:
    async def main() -> None:
        def refuse(server: ServerConnection, request: Request) -> Response:
            response = server.respond(HTTPStatus.TOO_MANY_REQUESTS, "slow down")
            response.headers["Retry-After"] = "17"
            return response

        async def handler(server: ServerConnection) -> None:
            raise AssertionError("must not be reached")

        async with serve(handler, "127.0.0.1", 0, process_request=refuse) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            with pytest.raises(FeedError, match="HTTP 429") as caught:
                await open_feed(f"ws://127.0.0.1:{port}/ws/x", Sink())
        assert caught.value.retry_after_s == 17

    asyncio.run(main())


def test_an_address_that_is_known_needs_no_name() -> None:
    async def main() -> None:
        async with library_server(lambda server: server.wait_closed()) as url:
            by_name = url.replace("127.0.0.1", "localhost")
            connection = await open_feed(by_name, Sink())
            assert connection.address in ("127.0.0.1", "::1")
            connection.close("enough")
            nowhere = url.replace("127.0.0.1", "exchange.invalid")
            with pytest.raises(FeedError, match="cannot connect"):
                await open_feed(nowhere, Sink())
            (await open_feed(nowhere, Sink(), address="127.0.0.1")).close("enough")

    asyncio.run(main())


def test_a_name_that_nobody_looks_up_in_time_leaves_nothing_behind() -> None:
    """Under uvloop, as in the actors."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        troubles: list[dict[str, object]] = []
        loop.set_exception_handler(lambda _, context: troubles.append(context))
        with pytest.raises(FeedError, match="no handshake"):
            await open_feed("ws://exchange.invalid/ws/x", Sink(), timeout_s=0.0)
        with suppress(OSError):
            await loop.getaddrinfo("exchange.invalid", 80)
        gc.collect()
        assert not troubles

    uvloop.run(main())


def test_nobody_listening_is_a_feed_error() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(FeedError, match="cannot connect"):
            await open_feed(f"ws://127.0.0.1:{port}/ws/x", Sink())

    asyncio.run(main())


def test_a_handshake_that_never_comes_is_given_up() -> None:
    async def main() -> None:
        left = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hang_up_after(reader, writer)
            left.set()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(FeedError, match=r"no handshake within 0\.3 s"):
                await open_feed(f"ws://127.0.0.1:{port}/ws/x", Sink(), timeout_s=0.3)
            await left.wait()

    asyncio.run(main())


def test_a_close_frame_ends_it_though_tcp_stays_open() -> None:
    """The library's own client notices this 20 s later."""

    async def main() -> None:
        async def close_only(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(text(b"last") + text((1001).to_bytes(2, "big") + b"bye", opcode=0x8))

        sink = Sink()
        async with raw_server(close_only) as url:
            connection = await open_feed(url, sink)
            assert "1001" in await ended(connection)
        assert sink.payloads == [b"last"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\xf1\x01x", id="reserved bits"),
        pytest.param(b"\x83\x01x", id="unknown opcode"),
        pytest.param(text(b"x", opcode=0), id="lone continuation"),
        pytest.param(b"\x89\x7e\x00\x80" + b"x" * 128, id="long control frame"),
        pytest.param(b"\x81\x7f" + (1 << 62).to_bytes(8, "big"), id="length of 2^62"),
    ],
)
def test_a_broken_frame_ends_it_and_keeps_what_came_before(garbage: bytes) -> None:
    async def main() -> None:
        async def break_it(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(text(b"good") + garbage)

        sink = Sink()
        async with raw_server(break_it) as url:
            connection = await open_feed(url, sink)
            assert "broke the protocol" in await ended(connection)
        assert sink.payloads == [b"good"]

    asyncio.run(main())


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(text(b"", opcode=0x9) * 2 * SLOW_FRAMES_PER_S, id="pings"),
        pytest.param(
            text(b"[", fin=False) + text(b"", opcode=0, fin=False) * SLOW_FRAMES_PER_S, id="fragments"
        ),
    ],
)
def test_frames_that_cost_much_are_not_taken_by_the_thousand(flood: bytes) -> None:
    async def main() -> None:
        async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(text(b"good") + flood)

        sink = Sink()
        async with raw_server(send) as url:
            connection = await open_feed(url, sink)
            assert "pings and fragments" in await ended(connection)
        assert sink.payloads == [b"good"]

    asyncio.run(main())


def test_an_end_without_a_close_frame_says_so() -> None:
    async def main() -> None:
        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        async with raw_server(hang_up) as url:
            connection = await open_feed(url, Sink())
            assert await ended(connection)

    asyncio.run(main())


def test_a_silent_peer_is_pinged_and_then_left() -> None:
    async def main() -> None:
        pings: list[bytes] = []

        async def listen(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            pings.append(await reader.read(64))

        async with raw_server(listen) as url:
            connection = await open_feed(url, Sink())
            now = asyncio.get_running_loop().time()
            connection.check(now + QUIET_S - 1)
            assert not connection.closed.done()
            connection.check(now + QUIET_S + 1)
            assert not connection.closed.done()
            connection.check(now + QUIET_S + PONG_TIMEOUT_S + 1)
            assert "answered nothing" in await ended(connection)
        assert pings[0][0] == 0x89

    asyncio.run(main())


def test_a_paused_feed_takes_nothing_until_it_is_resumed() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def handler(server: ServerConnection) -> None:
            await go.wait()
            await server.send("after the pause")
            await server.wait_closed()

        sink = Sink()
        async with library_server(handler) as url:
            connection = await open_feed(url, sink)
            connection.pause()
            go.set()
            await asyncio.sleep(0)
            assert sink.payloads == []
            connection.resume()
            await sink.wait_for(1)
            connection.close("enough")

    asyncio.run(main())
