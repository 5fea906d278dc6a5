"""The auditing consumer against a real nats-server: everything, once, and across the server's death."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import nats
import pytest
from nats.aio.client import Client

from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.nats.consumer import AuditConsumer, Connect, Source
from relay.audit.audit import Audit
from relay.audit.stream_audit import StreamAudit
from relay.binance.id_gaps import gap_rule
from relay.errors import BusError
from tests.support.freezing import frozen

TRADES = Source("TRADES", "md.trade")
FLOOD = 30_000


def connector(server: EmbeddedNats) -> Connect:
    async def connect() -> Client:
        # Pending data must hold a flood, for nats-py would wait in the middle of it.
        return await nats.connect(
            server.url,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            pending_size=64 * 1024 * 1024,
        )

    return connect


def body(number: int) -> bytes:
    return (
        f'{{"stream":"btcusdt@trade","data":{{"t":{number}}},"timestamp":"2026-01-01T00:00:00.123456Z",'
        f'"message_id":"usdm:btcusdt@trade:{number}","source":"binance-websocket","version":"1.0"}}'
    ).encode()


def headers(number: int) -> dict[str, str]:
    return {
        "Nats-Msg-Id": f"usdm:btcusdt@trade:{number}",
        "Sluice-Epoch": "1",
        "Sluice-Seq": str(number),
        "Sluice-Recv-Ns": str(time.time_ns()),
    }


async def create(server: EmbeddedNats) -> None:
    client = await connector(server)()
    await client.jetstream().add_stream(name="TRADES", subjects=["md.trade", "sluice.fence"])
    await client.close()


async def publish(server: EmbeddedNats, numbers: Iterable[int]) -> None:
    """Fast, and stored when it returns: with a reply subject the server keeps its order of arrival."""
    client = await connector(server)()
    for number in numbers:
        await client.publish("md.trade", body(number), headers=headers(number), reply="nobody")
    await client.jetstream().publish("sluice.fence", b"", headers={"Nats-Msg-Id": "fence:x:1"})
    await client.close()


def only(audit: Audit) -> StreamAudit:
    assert audit.malformed == 0, audit.last_problem
    (found,) = audit.report()
    return found


def test_everything_stored_is_read_once_and_the_fence_is_no_event(nats_server: EmbeddedNats) -> None:
    async def run() -> StreamAudit:
        await create(nats_server)
        await publish(nats_server, range(1, FLOOD + 1))
        audit = Audit(gap_rule)
        async with AuditConsumer(connector(nats_server), [TRADES], audit, from_start=True) as consumer:
            assert await consumer.caught_up(30)
        return only(audit)

    found = asyncio.run(run())
    assert found.clean
    assert (found.stored, found.last_id) == (FLOOD, str(FLOOD))


def test_from_now_on_leaves_out_what_was_stored_before(nats_server: EmbeddedNats) -> None:
    async def run() -> StreamAudit:
        await create(nats_server)
        await publish(nats_server, range(1, 11))
        audit = Audit(gap_rule)
        async with AuditConsumer(connector(nats_server), [TRADES], audit, from_start=False) as consumer:
            await publish(nats_server, range(11, 16))
            assert await consumer.caught_up(10)
        return only(audit)

    found = asyncio.run(run())
    assert (found.stored, found.first_id, found.lost) == (5, "11", 0)


def test_a_stream_created_later_is_waited_for(nats_server: EmbeddedNats) -> None:
    async def run() -> StreamAudit:
        audit = Audit(gap_rule)
        async with AuditConsumer(connector(nats_server), [TRADES], audit, from_start=True) as consumer:
            await create(nats_server)
            await publish(nats_server, range(1, 6))
            assert await consumer.caught_up(10)
        return only(audit)

    assert asyncio.run(run()).stored == 5


@pytest.mark.parametrize("end", [EmbeddedNats.kill, EmbeddedNats.stop], ids=["killed", "stopped"])
def test_reading_goes_on_where_it_stopped_when_the_server_comes_back(
    nats_server: EmbeddedNats, end: Callable[[EmbeddedNats], None]
) -> None:
    async def run() -> StreamAudit:
        await create(nats_server)
        audit = Audit(gap_rule)
        async with AuditConsumer(connector(nats_server), [TRADES], audit, from_start=True) as consumer:
            await publish(nats_server, range(1, 101))
            assert await consumer.caught_up(10)
            end(nats_server)
            nats_server.start()
            await publish(nats_server, range(101, 201))
            assert await consumer.caught_up(20)
        return only(audit)

    found = asyncio.run(run())
    assert found.clean
    assert found.stored == 200


def test_leaving_does_not_wait_for_a_frozen_server(nats_server: EmbeddedNats) -> None:
    async def run() -> bool:
        await create(nats_server)
        async with AuditConsumer(
            connector(nats_server), [TRADES], Audit(gap_rule), from_start=True
        ) as consumer:
            stack.enter_context(frozen(nats_server.pid))
            return await consumer.caught_up(0.1)

    with ExitStack() as stack:
        assert not asyncio.run(run())


def test_a_loss_in_the_stream_is_found(nats_server: EmbeddedNats) -> None:
    async def run() -> StreamAudit:
        await create(nats_server)
        await publish(nats_server, [1, 2, 5])
        audit = Audit(gap_rule)
        async with AuditConsumer(connector(nats_server), [TRADES], audit, from_start=True) as consumer:
            assert await consumer.caught_up(10)
        return only(audit)

    assert asyncio.run(run()).lost == 2


def test_core_nats_is_read_by_subject(nats_server: EmbeddedNats) -> None:
    async def run() -> StreamAudit:
        audit = Audit(gap_rule)
        source = Source("", "md.trade")
        async with AuditConsumer(connector(nats_server), [source], audit, from_start=False) as consumer:
            client = await connector(nats_server)()
            await client.flush()
            for number in range(1, 11):
                await client.publish("md.trade", body(number), headers=headers(number))
            await client.close()
            assert await consumer.caught_up(10)
        return only(audit)

    assert asyncio.run(run()).stored == 10


def test_a_server_that_is_not_there_is_reported(nats_server: EmbeddedNats) -> None:
    async def run() -> None:
        async with AuditConsumer(connector(nats_server), [TRADES], Audit(gap_rule), from_start=True):
            pass

    nats_server.stop()
    with pytest.raises(BusError, match="cannot read from NATS"):
        asyncio.run(run())
