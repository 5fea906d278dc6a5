"""The simulated exchange as its clients meet it: real sockets on loopback."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from relay.binance.streams import Venue, parse_stream
from simulator.replay import load_recording
from simulator.server import ExchangeServer, run_exchange
from simulator.settings import ExchangeSettings
from tests.support.paths import SAMPLES
from tests.support.polling import until_async

TRADES = "btcusdt@trade"
MARK = "btcusdt@markPrice@1s"
TEN = [
    f"{symbol}@{channel}"
    for symbol in ("btcusdt", "ethusdt")
    for channel in ("trade", "bookTicker", "ticker", "depth20@100ms", "markPrice@1s")
]
DEADLINE_S = 10.0


def run(case: Callable[[], Awaitable[None]]) -> None:
    async def within_deadline() -> None:
        async with asyncio.timeout(60):
            await case()

    asyncio.run(within_deadline())


@asynccontextmanager
async def exchange(**settings: Any) -> AsyncIterator[ExchangeServer]:
    """Sends nothing by itself unless told how much."""
    settings.setdefault("close_timeout_s", 0.2)
    settings.setdefault("rates", {} if "recording" in settings else {"*": 0.0})
    async with ExchangeServer(ExchangeSettings(**settings)) as server:
        yield server


def client(server: ExchangeServer, path: str, **more: Any) -> connect:
    return connect(server.url + path, compression=None, ping_interval=None, max_queue=None, **more)


async def read(socket: ClientConnection, count: int) -> list[bytes]:
    async with asyncio.timeout(DEADLINE_S):
        return [(await socket.recv(decode=False)) for _ in range(count)]


async def closed(socket: ClientConnection) -> ConnectionClosed:
    """Read to the end; how the connection ended."""
    async with asyncio.timeout(DEADLINE_S):
        try:
            while True:
                await socket.recv()
        except ConnectionClosed as end:
            return end


async def ask(socket: ClientConnection, method: str, *params: str) -> dict[str, Any]:
    """One control message and its answer; events that come before it are dropped."""
    await socket.send(orjson.dumps({"method": method, "params": params, "id": 1}), text=True)
    while "id" not in (answer := orjson.loads((await read(socket, 1))[0])):
        pass
    found: dict[str, Any] = answer
    return found


async def http(server: ExchangeServer, method: str, target: str, **headers: str) -> tuple[int, Any, Any]:
    def call() -> tuple[int, Any, Any]:
        request = urllib.request.Request(server.rest_url + target, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, orjson.loads(answer.read()), answer.headers
        except HTTPError as error:
            with error:
                return error.code, orjson.loads(error.read()), error.headers

    return await asyncio.to_thread(call)


def digest(payloads: list[bytes]) -> str:
    total = blake2b(digest_size=16)
    for payload in payloads:
        total.update(len(payload).to_bytes(4, "big") + payload)
    return total.hexdigest()


def ids(payloads: list[bytes]) -> list[int]:
    return [orjson.loads(payload)["t"] for payload in payloads]


def test_the_report_is_what_a_client_received() -> None:
    async def case() -> None:
        async with exchange() as server, client(server, f"/public/ws/{TRADES}") as socket:
            server.emit(TRADES, 1000)
            got = await read(socket, 1000)
            await server.stop_traffic()
            sent = server.sent()[TRADES]
            assert (sent.count, sent.events, sent.bytes) == (1000, 1000, sum(map(len, got)))
            assert (sent.first_id, sent.last_id) == (ids(got)[0], ids(got)[-1])
            assert sent.digest == digest(got)
            assert (sent.unseen, sent.withheld, sent.cut) == (0, 0, 0)
            assert all(later == earlier + 1 for earlier, later in pairwise(ids(got)))

    run(case)


def test_the_combined_form_carries_the_same_payloads_as_the_raw_one() -> None:
    async def case() -> None:
        async with (
            exchange() as server,
            client(server, f"/public/ws/{TRADES}") as raw,
            client(server, f"/public/stream?streams={TRADES}/btcusdt@bookTicker") as combined,
        ):
            await until_async(lambda: len(server.clients) == 2)
            server.emit(TRADES, 50)
            payloads, wrapped = await read(raw, 50), await read(combined, 50)
            lead = b'{"stream":"btcusdt@trade","data":'
            assert wrapped == [lead + payload + b"}" for payload in payloads]
            assert (server.sent()[TRADES].count, server.sent()[TRADES].events) == (100, 50)

    run(case)


@pytest.mark.parametrize("name", TEN)
def test_each_default_stream_flows_on_its_own_path(name: str) -> None:
    async def case() -> None:
        async with exchange() as server, client(server, parse_stream(Venue.USDM, name).path) as socket:
            server.emit(name, 1)
            event = orjson.loads((await read(socket, 1))[0])
            assert event["s"] == name.partition("@")[0].upper()

    run(case)


@pytest.mark.parametrize(
    ("venue", "path", "silent"),
    [
        ("usdm", f"/public/stream?streams={TRADES}/{MARK}", MARK),
        ("usdm", f"/stream?streams={MARK}/{TRADES}", MARK),
        ("usdm", f"/market/stream?streams={MARK}/{TRADES}", TRADES),
        ("usdm", f"/public/stream?streams=nosuch@trade/{TRADES}", "nosuch@trade"),
        ("spot", f"/stream?streams=BTCUSDT@trade/{TRADES}", "BTCUSDT@trade"),
    ],
)
def test_what_does_not_flow_is_acknowledged_and_silent(venue: str, path: str, silent: str) -> None:
    async def case() -> None:
        async with (
            exchange(venue=Venue(venue), rates={"*": 200.0}) as server,
            client(server, path) as socket,
        ):
            assert (await ask(socket, "SUBSCRIBE", silent))["result"] is None
            got = [orjson.loads(frame)["stream"] for frame in await read(socket, 50)]
            assert silent not in got
            assert silent in (await ask(socket, "LIST_SUBSCRIPTIONS"))["result"]

    run(case)


def test_subscriptions_change_while_the_connection_lives() -> None:
    async def case() -> None:
        async with exchange() as server, client(server, "/public/ws") as socket:
            assert await ask(socket, "SUBSCRIBE", TRADES, "ethusdt@trade") == {"result": None, "id": 1}
            server.emit(TRADES, 1)
            assert orjson.loads((await read(socket, 1))[0])["s"] == "BTCUSDT"
            assert await ask(socket, "UNSUBSCRIBE", TRADES) == {"result": None, "id": 1}
            server.emit(TRADES, 1)
            server.emit("ethusdt@trade", 1)
            assert orjson.loads((await read(socket, 1))[0])["s"] == "ETHUSDT"
            assert (await ask(socket, "LIST_SUBSCRIPTIONS"))["result"] == ["ethusdt@trade"]

    run(case)


def test_a_malformed_name_gets_an_error_object() -> None:
    async def case() -> None:
        async with exchange() as server, client(server, "/public/ws") as socket:
            answer = await ask(socket, "SUBSCRIBE", "btcusdt")
            assert answer == {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": 1}

    run(case)


def test_only_a_client_that_answers_pings_stays() -> None:
    async def case() -> None:
        async with (
            exchange(ping_interval_s=0.02, pong_deadline_s=0.5, messages_per_s=1000) as server,
            client(server, f"/public/ws/{TRADES}") as alive,
            client(server, f"/public/ws/{TRADES}") as deaf,
        ):
            await until_async(lambda: len(server.clients) == 2)
            deaf.transport.pause_reading()
            await until_async(lambda: len(server.clients) == 1)
            deaf.transport.resume_reading()
            end = await closed(deaf)
            assert end.rcvd is None or end.rcvd.code == 1008
            server.emit(TRADES, 1)
            assert len(await read(alive, 1)) == 1

    run(case)


def test_too_many_client_messages_end_the_connection_with_1008() -> None:
    async def case() -> None:
        async with exchange(venue=Venue.SPOT) as server, client(server, f"/ws/{TRADES}") as socket:
            for number in range(6):
                await socket.send(f'{{"method":"LIST_SUBSCRIPTIONS","id":{number}}}')
            end = await closed(socket)
            assert end.rcvd is not None
            assert (end.rcvd.code, end.rcvd.reason) == (1008, "Too many requests")

    run(case)


def test_pings_of_a_client_count_as_messages() -> None:
    async def case() -> None:
        async with exchange(venue=Venue.SPOT) as server, client(server, f"/ws/{TRADES}") as socket:
            for _ in range(6):
                await socket.ping()
            end = await closed(socket)
            assert end.rcvd is not None
            assert end.rcvd.code == 1008

    run(case)


def test_a_connection_ends_with_its_lifetime() -> None:
    async def case() -> None:
        async with exchange(lifetime_s=0.05) as server, client(server, f"/public/ws/{TRADES}") as socket:
            end = await closed(socket)
            assert end.rcvd is not None
            assert end.rcvd.code == 1001

    run(case)


def test_a_shutdown_notice_comes_in_the_connections_own_form_and_then_the_end() -> None:
    async def case() -> None:
        async with (
            exchange() as server,
            client(server, f"/public/ws/{TRADES}") as raw,
            client(server, f"/public/stream?streams={TRADES}") as combined,
        ):
            await until_async(lambda: len(server.clients) == 2)
            assert server.shutdown_notice(TRADES, close_after_s=0.0) == 2
            plain = orjson.loads((await read(raw, 1))[0])
            wrapped = orjson.loads((await read(combined, 1))[0])
            assert (plain["e"], set(plain)) == ("serverShutdown", {"e", "E"})
            assert (wrapped["stream"], wrapped["data"]["e"]) == ("!serverShutdown", "serverShutdown")
            assert (await closed(raw)).rcvd is not None
            assert (await closed(combined)).rcvd is not None

    run(case)


def test_connections_are_refused_on_demand_and_then_taken_again() -> None:
    async def case() -> None:
        async with exchange() as server:
            server.refuse(503, count=1)
            with pytest.raises(InvalidStatus) as refused:
                await client(server, f"/public/ws/{TRADES}")
            assert refused.value.response.status_code == 503
            server.refuse(429, retry_after_s=7)
            with pytest.raises(InvalidStatus) as refused:
                await client(server, f"/public/ws/{TRADES}")
            assert refused.value.response.headers["Retry-After"] == "7"
            server.refuse("reset")
            with pytest.raises((ConnectionError, InvalidMessage)):
                await client(server, f"/public/ws/{TRADES}")
            server.refuse("hang", count=1)
            with pytest.raises(TimeoutError):
                await client(server, f"/public/ws/{TRADES}", open_timeout=1.0)
            server.accept()
            async with client(server, f"/public/ws/{TRADES}"):
                assert server.status()["connects_5min"] == 5

    run(case)


def test_too_many_connection_attempts_are_refused() -> None:
    async def case() -> None:
        async with exchange(connects_per_5min=2) as server:
            for _ in range(2):
                async with client(server, "/public/ws"):
                    pass
            with pytest.raises(InvalidStatus) as refused:
                await client(server, "/public/ws")
            assert refused.value.response.status_code == 429

    run(case)


def test_a_silenced_stream_stops_for_old_sockets_while_new_ones_get_it() -> None:
    async def case() -> None:
        async with exchange() as server, client(server, f"/public/ws/{TRADES}/btcusdt@bookTicker") as old:
            await server.wait_subscribed(TRADES)
            server.silence(TRADES)
            async with client(server, f"/public/ws/{TRADES}") as new:
                await until_async(lambda: len(server.clients) == 2)
                server.emit(TRADES, 5)
                assert len(await read(new, 5)) == 5
                server.emit("btcusdt@bookTicker", 1)
                assert b"bookTicker" in (await read(old, 1))[0]

    run(case)


@pytest.mark.parametrize("code", [1001, 1006, 1011])
def test_sockets_of_one_stream_are_closed_on_demand(code: int) -> None:
    async def case() -> None:
        async with (
            exchange() as server,
            client(server, f"/public/ws/{TRADES}") as socket,
            client(server, "/public/ws/ethusdt@trade") as other,
        ):
            await server.wait_subscribed(TRADES, "ethusdt@trade")
            assert server.close_sockets(TRADES, code, "on demand") == 1
            end = await closed(socket)
            assert (end.rcvd.code if end.rcvd else 1006) == code
            server.emit("ethusdt@trade", 1)
            assert len(await read(other, 1)) == 1

    run(case)


def test_a_lingering_close_leaves_tcp_open() -> None:
    async def case() -> None:
        async with exchange() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
            writer.write(
                b"GET /public/ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            await reader.readuntil(b"\r\n\r\n")
            await server.wait_subscribed(TRADES)
            server.close_sockets(TRADES, 1001, linger=True)
            assert await reader.readexactly(4) == b"\x88\x02\x03\xe9"
            writer.write(b"\x88\x82\x00\x00\x00\x00\x03\xe9")
            await writer.drain()
            assert len(server.clients) == 1
            assert not reader.at_eof()
            writer.close()

    run(case)


def test_injected_bytes_reach_the_client_and_no_account() -> None:
    async def case() -> None:
        async with exchange() as server, client(server, f"/public/ws/{TRADES}") as socket:
            await server.wait_subscribed(TRADES)
            assert server.inject(TRADES, b'{"no":"trade"}') == 1
            assert await read(socket, 1) == [b'{"no":"trade"}']
            server.inject(TRADES, b"\xf1\x00", raw=True)
            end = await closed(socket)
            assert end.sent is not None
            assert end.sent.code == 1002
            assert server.sent()[TRADES].count == 0

    run(case)


def test_a_slow_reader_gets_everything_that_was_counted_as_sent() -> None:
    async def case() -> None:
        async with (
            exchange(rates={TRADES: 200_000.0}, max_owed_s=0.05) as server,
            client(server, f"/public/ws/{TRADES}") as socket,
        ):
            await server.wait_sent(TRADES, 1)
            socket.transport.pause_reading()
            await until_async(lambda: all(one.paused for one in server.clients))
            held = server.sent()[TRADES].events
            await until_async(lambda: server.catalog.channels[TRADES].stalled)
            assert server.sent()[TRADES].events == held
            socket.transport.resume_reading()
            await server.wait_sent(TRADES, held + 1)
            await server.stop_traffic()
            sent = server.sent()[TRADES]
            got = await read(socket, sent.count)
            assert sent.digest == digest(got)
            assert sent.count == sent.events

    run(case)


def test_a_socket_that_lags_behind_another_is_cut_and_the_other_gets_all() -> None:
    async def case() -> None:
        async with (
            exchange(queue_max_bytes=100_000, write_high_bytes=10_000) as server,
            client(server, f"/public/ws/{TRADES}") as slow,
            client(server, f"/public/ws/{TRADES}") as fast,
        ):
            await until_async(lambda: len(server.clients) == 2)
            slow.transport.pause_reading()
            got: list[bytes] = []
            while len(server.clients) == 2:
                server.emit(TRADES, 10_000)
                got += await read(fast, 10_000)
            sent = server.sent()[TRADES]
            assert digest(got) == sent.digest
            assert sent.cut > 0
            written_to_slow = sent.count - sent.events
            assert 0 < written_to_slow + sent.cut <= sent.events
            slow.transport.abort()

    run(case)


def test_a_socket_that_lags_a_while_gets_what_was_queued_for_it() -> None:
    async def case() -> None:
        async with (
            exchange(write_high_bytes=10_000) as server,
            client(server, f"/public/ws/{TRADES}") as slow,
            client(server, f"/public/ws/{TRADES}") as fast,
        ):
            await until_async(lambda: len(server.clients) == 2)
            slow.transport.pause_reading()
            got: list[bytes] = []
            while not any(one.paused for one in server.clients):
                server.emit(TRADES, 10_000)
                got += await read(fast, 10_000)
            server.emit(TRADES, 10_000)
            got += await read(fast, 10_000)
            slow.transport.resume_reading()
            assert await read(slow, len(got)) == got
            await server.stop_traffic()
            assert server.sent()[TRADES].count == 2 * len(got)

    run(case)


def test_times_are_those_of_the_sending() -> None:
    async def case() -> None:
        async with exchange() as server, client(server, f"/public/ws/{TRADES}") as socket:
            before_ms = time.time_ns() // 1_000_000
            server.emit(TRADES, 1)
            event = orjson.loads((await read(socket, 1))[0])
            assert before_ms <= event["E"] == event["T"] <= time.time_ns() // 1_000_000
            sent_ns = server.sent()[TRADES].last_sent_ns
            assert sent_ns is not None
            assert sent_ns // 1_000_000 == event["E"]

    run(case)


def test_what_was_sent_can_be_recorded_and_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "sent.gz"

    async def case() -> None:
        async with exchange(record=path) as server, client(server, f"/public/ws/{TRADES}") as socket:
            server.emit(TRADES, 500)
            got = await read(socket, 500)
        async with exchange(recording=path) as server, client(server, f"/public/ws/{TRADES}") as socket:
            assert await read(socket, 500) == got

    run(case)


def test_events_of_an_absence_are_reported_and_can_be_healed() -> None:
    async def case() -> None:
        async with exchange() as server:
            async with client(server, f"/public/ws/{TRADES}") as socket:
                await server.wait_subscribed(TRADES)
                server.emit(TRADES, 10)
                before = ids(await read(socket, 10))
            await until_async(lambda: not server.clients)
            server.emit(TRADES, 40)
            await until_async(lambda: server.sent()[TRADES].unseen == 40)
            async with client(server, f"/public/ws/{TRADES}") as socket:
                await server.wait_subscribed(TRADES)
                server.emit(TRADES, 10)
                after = ids(await read(socket, 10))
            first, last = before[-1] + 1, after[0] - 1
            assert server.sent()[TRADES].unseen_ranges == ((first, last),)
            call = f"/fapi/v1/historicalTrades?symbol=BTCUSDT&fromId={first}&limit={last - first + 1}"
            status, rows, headers = await http(server, "GET", call, **{"X-MBX-APIKEY": "any"})
            assert (status, [row["id"] for row in rows]) == (200, list(range(first, last + 1)))
            assert headers["X-MBX-USED-WEIGHT-1M"] == "200"

    run(case)


def test_events_are_left_out_on_demand_and_rest_has_them() -> None:
    async def case() -> None:
        async with exchange() as server, client(server, f"/public/ws/{TRADES}") as socket:
            await server.wait_subscribed(TRADES)
            assert (await http(server, "POST", f"/sim/skip?stream={TRADES}&count=3"))[0] == 200
            server.emit(TRADES, 3)
            await until_async(lambda: server.sent()[TRADES].unseen == 3)
            server.skip(TRADES, 2)
            server.emit(TRADES, 7)
            got = ids(await read(socket, 5))
            sent = server.sent()[TRADES]
            assert (sent.events, sent.unseen_ranges) == (5, ((got[0] - 5, got[0] - 1),))
            status, rows, headers = await http(server, "GET", "/fapi/v1/trades?symbol=BTCUSDT&limit=8")
            assert (status, [row["id"] for row in rows]) == (200, list(range(got[0] - 3, got[-1] + 1)))
            assert headers["X-MBX-USED-WEIGHT-1M"] == "5"

    run(case)


def test_rest_is_refused_on_demand_and_sockets_are_not() -> None:
    async def case() -> None:
        async with exchange() as server:
            for how, status in (("429&retry_after_s=7", 429), ("503", 503)):
                assert (await http(server, "POST", f"/sim/refuse-rest?how={how}&count=1"))[0] == 200
                found, _, headers = await http(server, "GET", "/fapi/v1/ping")
                assert (found, headers["Retry-After"]) == (status, "7" if status == 429 else None)
                assert (await http(server, "GET", "/fapi/v1/ping"))[0] == 200
            server.refuse_rest()
            async with client(server, f"/public/ws/{TRADES}"):
                await server.wait_subscribed(TRADES)
            assert (await http(server, "POST", "/sim/accept-rest"))[0] == 200
            assert (await http(server, "GET", "/fapi/v1/ping"))[0] == 200

    run(case)


def test_a_hundred_thousand_events_in_one_go_arrive_complete() -> None:
    async def case() -> None:
        async with exchange() as server, client(server, f"/public/ws/{TRADES}") as socket:
            server.emit(TRADES, 100_000)
            got = await read(socket, 100_000)
            assert digest(got) == server.sent()[TRADES].digest

    run(case)


def test_floods_and_faults_are_told_over_http() -> None:
    async def case() -> None:
        async with exchange() as server, client(server, f"/public/ws/{TRADES}") as socket:
            assert (await http(server, "POST", f"/sim/flood?stream={TRADES}&rate=1000"))[0] == 200
            await read(socket, 100)
            assert (await http(server, "POST", f"/sim/calm?stream={TRADES}"))[0] == 200
            _, answer, _ = await http(server, "POST", "/sim/shutdown")
            assert answer == {"sockets": 1}
            assert (await http(server, "POST", "/sim/refuse?how=503&count=1"))[0] == 200
            with pytest.raises(InvalidStatus):
                await client(server, "/public/ws")
            _, status, _ = await http(server, "GET", "/sim/status")
            assert status["connections"][0]["streams"] == [TRADES]
            _, report, _ = await http(server, "POST", "/sim/stop-traffic")
            assert report["final"] is True
            assert report["streams"][TRADES]["digest"] == server.sent()[TRADES].digest
            _, answer, _ = await http(server, "POST", f"/sim/close?stream={TRADES}&code=1012")
            assert answer == {"sockets": 1}
            end = await closed(socket)
            assert end.rcvd is not None
            assert end.rcvd.code == 1012

    run(case)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/sim/flood?stream=btcusdt@trade", 400),
        ("POST", "/sim/flood?stream=btcusdt@trade&rate=much", 400),
        ("POST", "/sim/flood?stream=nosuch@trade&rate=5", 400),
        ("POST", "/sim/silence?stream=btcusdt@trade", 400),
        ("POST", "/sim/refuse?how=200", 400),
        ("GET", "/sim/flood?stream=btcusdt@trade&rate=5", 405),
        ("POST", "/sim/sent", 405),
        ("POST", "/sim/nothing", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/api/v3/ping", 404),
    ],
)
def test_wrong_calls_over_http_are_refused_with_the_reason(method: str, target: str, status: int) -> None:
    async def case() -> None:
        async with exchange() as server:
            found, answer, _ = await http(server, method, target)
            assert found == status
            assert answer["error"]

    run(case)


def test_traffic_waits_for_every_expected_subscriber() -> None:
    async def case() -> None:
        async with (
            exchange(expected=(TRADES, "ethusdt@trade"), rates={"*": 500.0}) as server,
            client(server, f"/public/ws/{TRADES}") as first,
        ):
            await server.wait_subscribed(TRADES)
            assert not server.status()["started"]
            async with client(server, "/public/ws/ethusdt@trade") as second:
                await read(first, 5)
                await read(second, 5)
            assert server.sent()[TRADES].unseen == 0

    run(case)


def test_after_the_end_of_traffic_nothing_comes_and_the_report_stands() -> None:
    async def case() -> None:
        async with (
            exchange(rates={"*": 1000.0}) as server,
            client(server, f"/public/ws/{TRADES}") as socket,
        ):
            await server.wait_sent(TRADES, 50)
            await server.stop_traffic()
            final = server.sent()
            await read(socket, final[TRADES].count)
            server.flood(TRADES, 1000.0)
            server.inject(TRADES, b"{}")
            assert await read(socket, 1) == [b"{}"]
            assert server.sent() == final
            assert server.finished

    run(case)


def test_the_exchange_ends_although_a_client_does_not_read() -> None:
    async def case() -> None:
        async with exchange(rates={TRADES: 500_000.0}) as server:
            socket = await client(server, f"/public/ws/{TRADES}")
            socket.transport.pause_reading()
            await until_async(lambda: bool(server.clients) and all(one.paused for one in server.clients))
        socket.transport.abort()

    run(case)


def test_a_run_prints_its_url_and_serves_until_cancelled(capsys: pytest.CaptureFixture[str]) -> None:
    async def case() -> None:
        serving = asyncio.create_task(run_exchange(ExchangeSettings()))
        printed = await until_async(lambda: capsys.readouterr().out)
        assert printed.count("\n") == 1
        async with connect(f"{printed.strip()}/public/ws/btcusdt@bookTicker") as socket:
            await read(socket, 1)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving

    run(case)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"the recorded frames are not at {SAMPLES}")
@pytest.mark.parametrize("venue", [Venue.SPOT, Venue.USDM])
def test_a_recorded_file_at_a_hundred_times_its_pace_arrives_complete(venue: Venue) -> None:
    path = SAMPLES / f"{venue}_btcusdt_20240808.gz"
    tracks = load_recording(path).tracks

    async def case() -> None:
        async with exchange(venue=venue, recording=path, speed=100.0, expected=("*",)) as server:
            async with asyncio.TaskGroup() as group:
                reading = {
                    name: group.create_task(_read_track(server, name, len(tracks[name].payloads)))
                    for name in tracks
                }
            await server.wait_finished()
            sent = server.sent()
        for name, track in tracks.items():
            assert digest(track.payloads) == digest(reading[name].result()) == sent[name].digest
            assert (sent[name].unseen, sent[name].withheld) == (0, 0)

    async def _read_track(server: ExchangeServer, name: str, count: int) -> list[bytes]:
        async with client(server, parse_stream(venue, name).path, max_size=None) as socket:
            return [await socket.recv(decode=False) for _ in range(count)]

    run(case)
