"""GET requests to the exchange's REST side, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from relay.adapters.http import Answer, RestClient
from relay.binance.backfill import RestQuery
from relay.binance.streams import Venue
from relay.errors import RestError, RestRefusedError
from simulator.server import ExchangeServer
from simulator.settings import ExchangeSettings

AGG = RestQuery("/fapi/v1/aggTrades", {"symbol": "BTCUSDT", "limit": "10"}, 20, with_key=False)
KEYED = RestQuery("/fapi/v1/historicalTrades", {"symbol": "BTCUSDT", "limit": "10"}, 200, with_key=True)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(case: Callable[[], Awaitable[None]]) -> None:
    async def within_deadline() -> None:
        async with asyncio.timeout(20):
            await case()

    asyncio.run(within_deadline())


@asynccontextmanager
async def exchange(**settings: object) -> AsyncIterator[ExchangeServer]:
    async with ExchangeServer(ExchangeSettings(venue=Venue.USDM, rates={"*": 0.0}, **settings)) as server:
        yield server


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives these bytes, one after the other, to each connection; and what it was asked."""
    asked: list[bytes] = []

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)

    async with served(answer_all) as url:
        yield url, asked


@asynccontextmanager
async def served(talk: Talk) -> AsyncIterator[str]:
    """The URL of a server that talks with each client until that one leaves."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
            await reader.read()
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*tasks)


async def get(
    base_url: str, query: RestQuery = AGG, key: Path | None = None, timeout_s: float = 5.0
) -> Answer:
    client = RestClient(base_url, key, timeout_s)
    try:
        return await client.get(query)
    finally:
        client.close()


def whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_rows_come_with_the_weight_that_the_address_has_used() -> None:
    async def test() -> None:
        async with exchange() as server:
            assert await get(server.rest_url) == Answer([], 20)
            assert await get(server.rest_url) == Answer([], 40)

    run(test)


@pytest.mark.parametrize("status", [429, 418])
def test_too_many_requests_say_how_long_to_wait(status: int) -> None:
    async def test() -> None:
        async with exchange() as server:
            server.refuse_rest(status, retry_after_s=17)
            with pytest.raises(RestError) as limited:
                await get(server.rest_url)
            assert (limited.value.limited, limited.value.retry_after_s) == (True, 17.0)

    run(test)


@pytest.mark.parametrize("how", [503, "reset"])
def test_a_failure_may_be_tried_again(how: int | str) -> None:
    async def test() -> None:
        async with exchange() as server:
            server.refuse_rest(how, count=1)
            client = RestClient(server.rest_url, None)
            with pytest.raises(RestError) as failed:
                await client.get(AGG)
            assert not failed.value.limited
            assert (await client.get(AGG)).rows == []
            client.close()

    run(test)


def test_nobody_there_may_be_tried_again() -> None:
    async def test() -> None:
        with pytest.raises(RestError, match="no answer from 127"):
            await get("http://127.0.0.1:9")

    run(test)


def test_a_server_that_never_answers_is_left() -> None:
    async def test() -> None:
        async with exchange() as server:
            server.refuse_rest("hang")
            with pytest.raises(RestError, match="no answer"):
                await get(server.rest_url, timeout_s=0.1)

    run(test)


def test_an_answer_that_only_drips_is_left_as_a_whole() -> None:
    async def test() -> None:
        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b"[")
                await writer.drain()
                await asyncio.sleep(0.02)

        async with served(drip) as url:
            with pytest.raises(RestError, match="no whole answer"):
                await get(url, timeout_s=0.1)

    run(test)


def test_the_key_goes_to_the_calls_that_want_it_and_to_no_other(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("Abc123\n")

    async def test() -> None:
        async with scripted(whole(b"[]"), whole(b"[]")) as (url, asked):
            client = RestClient(url, key)
            await client.get(AGG)
            await client.get(KEYED)
            client.close()
        assert b"X-MBX-APIKEY" not in asked[0]
        assert b"X-MBX-APIKEY: Abc123\r\n" in asked[1]

    run(test)


def test_without_a_key_the_exchange_refuses_for_good() -> None:
    async def test() -> None:
        async with exchange() as server:
            with pytest.raises(RestRefusedError, match=r"HTTP 401: API-key format invalid"):
                await get(server.rest_url, KEYED)

    run(test)


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "é"])
def test_a_key_that_would_break_the_header_is_never_sent(tmp_path: Path, text: str) -> None:
    key = tmp_path / "key"
    key.write_text(text)

    async def test() -> None:
        async with scripted(whole(b"[]")) as (url, asked):
            with pytest.raises(RestRefusedError, match="api_key_file"):
                await get(url, KEYED, key)
        assert asked == []

    run(test)


UNFIT = {
    "no JSON": whole(b"<html>"),
    "another place": whole(b"", "Location: http://127.0.0.1:9/", status="302 Found"),
    "no such path": whole(b'{"code":-1,"msg":"no such path"}', status="404 Not Found"),
}


@pytest.mark.parametrize("answer", UNFIT.values(), ids=UNFIT)
def test_an_answer_that_will_never_do_is_refused(answer: bytes) -> None:
    async def test() -> None:
        async with scripted(answer) as (url, _):
            with pytest.raises(RestRefusedError):
                await get(url)

    run(test)


def test_an_answer_without_end_is_not_read_to_the_end() -> None:
    async def test() -> None:
        async with scripted(whole(b"[" + b"1," * (4 * 1024 * 1024))) as (url, _):
            with pytest.raises(RestRefusedError, match="JSON"):
                await get(url)

    run(test)
