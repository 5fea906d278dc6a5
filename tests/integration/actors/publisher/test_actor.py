"""A plain publisher between test clients on its unix socket and a real nats-server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Coroutine
from typing import Any

import nats
import pytest

from relay.adapters.local.nats_server import EmbeddedNats
from relay.delivery import link_codec
from relay.model.position import NOTHING_STORED
from relay.model.record_batch import MAX_BATCH_BYTES, MAX_RECORDS, NO_EVENT_ID, RecordKind
from tests.support.freezing import frozen
from tests.support.hosts import SECRET
from tests.support.link_client import LinkClient, Sender, events
from tests.support.publisher_rig import BOOK, OTHER, TRADE, Rig, StoredEvent
from tests.support.records import Record

COUNT = 3000


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def trade_ids(stored: list[StoredEvent]) -> list[int]:
    return [one.data["t"] for one in stored]


def test_events_are_stored_once_in_order_and_byte_for_byte(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            sent = events(7, COUNT)
            await Sender(await rig.opened(), sent).run()
            stored = await rig.stored()
            assert trade_ids(stored) == list(range(1, COUNT + 1))
            head = b'{"stream":"btcusdt@trade","data":'
            assert all(
                one.body.startswith(head + record.payload + b',"timestamp":"2026-01-01T00:00:00.')
                for one, record in zip(stored, sent, strict=True)
            )
            assert rig.stats().acknowledged == COUNT

    run(test())


def test_each_event_carries_its_id_and_its_position(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            await Sender(await rig.opened(), events(7, 2)).run()
            await Sender(await rig.opened(BOOK, epoch=8), events(8, 2, ids=False)).run()
            trade, book = (await rig.stored())[1], (await rig.stored(BOOK))[1]
            assert trade.headers["Nats-Msg-Id"] == "usdm:btcusdt@trade:2"
            assert trade.headers["Nats-Expected-Last-Msg-Id"] == "usdm:btcusdt@trade:1"
            assert trade.headers["Nats-Expected-Last-Sequence"] == str(trade.sequence - 1)
            assert book.headers["Nats-Msg-Id"] == "usdm:btcusdt@depth20@100ms:8-2"
            assert json.loads(book.body)["message_id"] == "usdm:btcusdt@depth20@100ms:8-2"
            assert (book.headers["Sluice-Epoch"], book.headers["Sluice-Seq"]) == ("8", "2")
            assert book.headers["Sluice-Recv-Ns"] == "1767225600000000000"

    run(test())


def test_acknowledgements_are_cumulative_and_few(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            await Sender(client, events(7, COUNT)).run()
            assert client.heard.acks < COUNT / 3

    run(test())


def test_a_new_incarnation_goes_on_after_the_last_stored_event(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            await Sender(await rig.opened(epoch=7), events(7, 10)).run()
            successor = await rig.opened(epoch=9)
            resume = successor.heard.resumes[0]
            assert resume.stored.epoch_seq == (7, 10)
            await Sender(successor, events(9, 5, first=11)).run()
            assert trade_ids(await rig.stored()) == list(range(1, 16))

    run(test())


def test_an_older_incarnation_is_fenced_at_the_same_publisher(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            newer = await rig.opened(epoch=9)
            older = await rig.link(epoch=7)
            assert (await older.until_closed()).fenced_by == 9
            await Sender(newer, events(9, 3)).run()

    run(test())


def test_an_older_incarnation_at_another_publisher_gets_nothing_stored(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            other = rig.start_publisher("p1")
            try:
                older = await rig.opened(epoch=7)
                await Sender(older, events(7, 10)).run()
                newer = await rig.opened(epoch=9, publisher=other)
                older.send(*events(7, 5, first=11))
                assert (await older.until_closed()).fenced_by == 9
                await Sender(newer, events(9, 5, first=100)).run()
                assert trade_ids(await rig.stored()) == [*range(1, 11), *range(100, 105)]
            finally:
                await asyncio.to_thread(other.stop)

    run(test())


def test_an_older_incarnation_does_not_catch_up_by_repeats(nats_server: EmbeddedNats) -> None:
    """It sends what its successor has stored under the same ids, and one event more."""

    async def test() -> None:
        async with Rig(nats_server) as rig:
            other = rig.start_publisher("p1")
            try:
                older = await rig.opened(epoch=7)
                await Sender(older, events(7, 1)).run()
                newer = await rig.opened(epoch=9, publisher=other)
                await Sender(newer, events(9, 4, first=2)).run()
                older.send(*events(7, 5, first=2))
                assert (await older.until_closed()).fenced_by == 9
                assert trade_ids(await rig.stored()) == [1, 2, 3, 4, 5]
            finally:
                await asyncio.to_thread(other.stop)

    run(test())


def test_an_older_incarnation_that_returns_later_is_fenced_by_nats(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            newer = await rig.opened(epoch=9)
            newer.close()
            await rig.until(lambda stats: not stats.streams)
            older = await rig.link(epoch=7)
            assert (await older.until_closed()).fenced_by == 9

    run(test())


def test_two_publishers_with_the_same_stream_store_each_event_once(nats_server: EmbeddedNats) -> None:
    """As when a stopped publisher wakes up and writes what its successor has long written."""

    async def test() -> None:
        async with Rig(nats_server) as rig:
            other = rig.start_publisher("p1")
            try:
                first, second = await rig.opened(), await rig.opened(publisher=other)
                sent = events(7, 300)
                first.send(*sent[:100])
                await first.until(lambda heard: heard.acknowledged == 100)
                successor = Sender(second, sent)
                await successor.run()
                first.send(*sent[100:250])
                await first.until(lambda heard: heard.acknowledged == 250 or len(heard.resumes) > 1)
                assert trade_ids(await rig.stored()) == list(range(1, 301))
            finally:
                await asyncio.to_thread(other.stop)

    run(test())


def test_a_known_tip_goes_on_without_asking_for_the_last_event(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            first = await rig.opened()
            await Sender(first, events(7, 10)).run()
            first.write(link_codec.frame(link_codec.BYE))
            await first.until_closed()
            second = await rig.opened(tip="usdm:btcusdt@trade:10")
            assert second.heard.resumes == [link_codec.Resume(2, NOTHING_STORED, 1024, 4 * 1024 * 1024)]
            await Sender(second, events(7, 5, first=11)).run()
            assert trade_ids(await rig.stored()) == list(range(1, 16))

    run(test())


def test_repeats_are_acknowledged_and_not_stored_again(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            await Sender(await rig.opened(), events(7, 10)).run()
            again = await rig.opened(tip="usdm:btcusdt@trade:4")
            again.send(*events(7, 1, first=5))
            await again.until(lambda heard: heard.acknowledged == 5)
            assert rig.stats().duplicates == 1
            # The repeat was not stored, so what follows is refused, and the stream is told where to resume.
            again.send(*events(7, 19, first=6))
            await again.until(lambda heard: len(heard.resumes) == 2)
            assert rig.stats().errors == 1
            await Sender(again, events(7, 20, first=5)).run()
            assert trade_ids(await rig.stored()) == list(range(1, 25))

    run(test())


def test_a_wrong_tip_is_found_out_and_nothing_is_stored_behind_a_gap(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            await Sender(await rig.opened(), events(7, 10)).run()
            client = await rig.opened(tip="usdm:btcusdt@trade:15")
            await Sender(client, events(7, 20)).run()
            assert len(client.heard.resumes) == 2
            assert trade_ids(await rig.stored()) == list(range(1, 21))
            lost = await rig.opened(tip="usdm:btcusdt@trade:99")
            lost.send(*events(7, 3, first=100))
            heard = await lost.until(lambda heard: len(heard.resumes) == 2)
            assert heard.resumes[1].stored.epoch_seq == (7, 20)
            assert trade_ids(await rig.stored()) == list(range(1, 21))

    run(test())


def test_repeats_after_the_dedup_window_are_refused_and_the_rest_follows(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server, "stream: {duplicate_window_s: 100ms}") as rig:
            await Sender(await rig.opened(), events(7, 10)).run()
            # The server forgets ids on a timer of its own; the answer shows when it has.
            async with asyncio.timeout(10):
                while "10070" not in rig.stats().last_error:
                    client = await rig.opened(tip="usdm:btcusdt@trade:4")
                    client.send(*events(7, 1, first=5))
                    await client.until(lambda heard: heard.acknowledged == 5 or len(heard.resumes) == 2)
            await Sender(client, events(7, 20, first=5)).run()
            assert trade_ids(await rig.stored()) == list(range(1, 25))

    run(test())


def test_what_somebody_else_writes_between_is_survived(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            sender = Sender(client, events(7, 20))
            client.send(*sender.records[:10])
            await client.until(lambda heard: heard.acknowledged == 10)
            foreign = await nats.connect(nats_server.url)
            await foreign.request("binance.usdm.btcusdt.trade", b"not ours", headers={"Nats-Msg-Id": "x"})
            await foreign.close()
            client.send(*sender.records[10:])
            # The last message is the foreign one and names no position: the stream goes on after its own.
            heard = await client.until(lambda heard: len(heard.resumes) == 2)
            assert heard.resumes[1].stored.epoch_seq == (0, 0)
            await sender.run()
            bodies = [one.body for one in await rig.stored()]
            assert bodies.pop(10) == b"not ours"
            assert [json.loads(body)["data"]["t"] for body in bodies] == list(range(1, 21))

    run(test())


@pytest.mark.parametrize("restart", [EmbeddedNats.kill, EmbeddedNats.stop])
def test_a_restart_of_nats_loses_and_repeats_nothing(nats_server: EmbeddedNats, restart: Any) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            sender = asyncio.create_task(Sender(client, events(7, 4 * COUNT)).run())
            for part in (1, 2):
                await client.until(lambda heard, part=part: heard.acknowledged > part * COUNT)
                await asyncio.to_thread(restart, nats_server)
                await client.until(lambda heard: bool(heard.alive) and not heard.alive[-1])
                await asyncio.to_thread(nats_server.start)
            await sender
            assert trade_ids(await rig.stored()) == list(range(1, 4 * COUNT + 1))
            assert rig.stats().reconnects == 2

    run(test())


def test_a_frozen_nats_is_left_and_nothing_is_lost_or_repeated(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server, stall_s=0.5) as rig:
            client = await rig.opened()
            sender = asyncio.create_task(Sender(client, events(7, 2 * COUNT)).run())
            await client.until(lambda heard: heard.acknowledged > 100)
            with frozen(nats_server.pid):
                await client.until(lambda heard: bool(heard.alive) and not heard.alive[-1])
                frozen_at = client.heard.acknowledged
                assert not rig.stats().connected
            await sender
            assert frozen_at < 2 * COUNT
            assert trade_ids(await rig.stored()) == list(range(1, 2 * COUNT + 1))

    run(test())


def test_a_purge_while_running_disturbs_nothing(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            await Sender(client, events(7, 10)).run()
            await rig.api(f"STREAM.PURGE.{rig.spec().jetstream_name}")
            client.send(*events(7, 5, first=11))
            await client.until(lambda heard: heard.acknowledged == 15)
            assert trade_ids(await rig.stored()) == list(range(11, 16))
            assert len(client.heard.resumes) == 1

    run(test())


def test_after_a_purge_and_a_restart_made_nats_forget_the_tip_the_stream_goes_on(
    nats_server: EmbeddedNats,
) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            await Sender(client, events(7, 10)).run()
            await rig.api(f"STREAM.PURGE.{rig.spec().jetstream_name}")
            await asyncio.to_thread(nats_server.restart)
            heard = await client.until(lambda heard: len(heard.resumes) == 2)
            assert heard.resumes[1].stored.epoch_seq == (0, 0)
            client.send(*events(7, 5, first=11))
            await client.until(lambda heard: heard.acknowledged == 15)
            assert trade_ids(await rig.stored()) == list(range(11, 16))

    run(test())


def test_a_stream_that_is_deleted_and_made_again_is_found(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            await Sender(client, events(7, 10)).run()
            await rig.api(f"STREAM.DELETE.{rig.spec().jetstream_name}")
            client.send(*events(7, 5, first=11))
            stats = await rig.until(lambda stats: stats.errors > 1)
            assert "503" in stats.last_error or "10059" in stats.last_error
            assert client.heard.acknowledged == 10
            await rig.ensure()
            await client.until(lambda heard: len(heard.resumes) == 2)
            client.send(*events(7, 5, first=11))
            await client.until(lambda heard: heard.acknowledged == 15)
            assert trade_ids(await rig.stored()) == list(range(11, 16))

    run(test())


def test_a_full_stream_is_counted_and_waited_for(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            name = rig.spec().jetstream_name
            config = (await rig.api(f"STREAM.INFO.{name}"))["config"]
            full = config | {"discard": "new", "max_msgs": 4}
            assert "error" not in await rig.api(f"STREAM.UPDATE.{name}", json.dumps(full).encode())
            client = await rig.opened()
            sender = asyncio.create_task(Sender(client, events(7, 20)).run())
            stats = await rig.until(lambda stats: stats.errors > 1)
            assert "10077" in stats.last_error
            assert stats.errors_by_code == {"10077": stats.errors}
            assert "error" not in await rig.api(f"STREAM.UPDATE.{name}", json.dumps(config).encode())
            await sender
            assert trade_ids(await rig.stored()) == list(range(1, 21))
            assert not client.closed

    run(test())


def test_trouble_with_one_stream_leaves_the_others_alone(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            bad, good = await rig.opened(TRADE), await rig.opened(OTHER)
            await rig.api(f"STREAM.DELETE.{rig.spec(TRADE).jetstream_name}")
            bad.send(*events(7, 10))
            await rig.until(lambda stats: stats.errors > 0)
            await Sender(good, events(7, COUNT)).run()
            assert len(good.heard.resumes) == 1
            assert trade_ids(await rig.stored(OTHER)) == list(range(1, COUNT + 1))

    run(test())


def test_the_largest_record_passes(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            sent = events(7, 20)
            sent[9].payload = b'"' + b"x" * (MAX_BATCH_BYTES - 100) + b'"'
            await Sender(client, sent).run(batch=1)
            assert client.heard.refused == []
            assert len(await rig.stored()) == 20

    run(test())


def test_an_event_beyond_the_servers_limit_is_refused_and_the_rest_goes_on(tmp_path: Any) -> None:
    async def test() -> None:
        with EmbeddedNats(tmp_path / "n", extra_config="max_payload: 4096") as server:
            async with Rig(server) as rig:
                client = await rig.opened()
                sent = events(7, 20)
                sent[9].payload = b'"' + b"x" * 3900 + b'"'
                await Sender(client, sent).run()
                (refused,) = client.heard.refused
                assert (refused.session, refused.offset) == (1, 10)
                assert "4096" in refused.reason
                assert trade_ids(await rig.stored()) == [n for n in range(1, 21) if n != 10]
                assert rig.stats().reconnects == 0

    run(test())


def test_side_records_are_stored_beside_and_acknowledged_in_order(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            sent = events(7, 2)
            sent.insert(1, Record(RecordKind.LOSS, 90, 7, 1, 5, NO_EVENT_ID, b'{"lost":3}'))
            sent.append(Record(RecordKind.REJECTED, 91, 7, 2, 6, NO_EVENT_ID, b'{"reason":"not JSON"}'))
            for offset, record in enumerate(sent, 1):
                record.offset = offset
            client.send(*sent)
            await client.until(lambda heard: heard.acknowledged == 4)
            client.send(*sent[1:2], session=client.session)
            loss, rejected = await rig.read("SLUICE_SIDE", "sluice.>")
            assert (loss.body, rejected.body) == (b'{"lost":3}', b'{"reason":"not JSON"}')
            assert loss.headers["Nats-Msg-Id"] == "usdm:btcusdt@trade:loss:7-2"
            assert trade_ids(await rig.stored()) == [1, 2]

    run(test())


def test_streams_that_share_a_subject_are_stored_apart_and_republished(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server, "subject: binance.websocket.data") as rig:
            subscriber = await nats.connect(nats_server.url)
            seen = await subscriber.subscribe("binance.websocket.data")
            await subscriber.flush()
            await Sender(await rig.opened(TRADE), events(7, 3)).run()
            await Sender(await rig.opened(OTHER), events(7, 3)).run()
            bodies = [json.loads((await seen.next_msg(5)).data) for _ in range(6)]
            assert [body["stream"] for body in bodies] == ["btcusdt@trade"] * 3 + ["ethusdt@trade"] * 3
            assert trade_ids(await rig.stored(TRADE)) == [1, 2, 3]
            await subscriber.close()

    run(test())


def test_nats_need_not_be_there_when_the_publisher_starts(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            nats_server.stop()
            late = rig.start_publisher("p1")
            try:
                client = await rig.link(publisher=late)
                assert (await client.until(lambda heard: bool(heard.alive))).alive == [False]
                await asyncio.to_thread(nats_server.start)
                await client.until(lambda heard: bool(heard.resumes))
                await Sender(client, events(7, 5)).run()
            finally:
                await asyncio.to_thread(late.stop)

    run(test())


def test_core_delivery_is_acknowledged_and_reaches_subscribers_in_order(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server, "delivery: core") as rig:
            subscriber = await nats.connect(nats_server.url)
            seen = await subscriber.subscribe("binance.usdm.btcusdt.trade", pending_bytes_limit=2**30)
            await subscriber.flush()
            client = await rig.opened()
            await Sender(client, events(7, COUNT)).run()
            got = [await seen.next_msg(5) for _ in range(COUNT)]
            assert [json.loads(one.data)["data"]["t"] for one in got] == list(range(1, COUNT + 1))
            assert got[0].headers is not None
            assert got[0].headers["Nats-Msg-Id"] == "usdm:btcusdt@trade:1"
            await subscriber.close()

    run(test())


def test_core_delivery_can_leave_the_headers_out(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server, "delivery: core\n  headers: false") as rig:
            subscriber = await nats.connect(nats_server.url)
            seen = await subscriber.subscribe("binance.usdm.btcusdt.trade")
            await subscriber.flush()
            await Sender(await rig.opened(), events(7, 1)).run()
            one = await seen.next_msg(5)
            assert one.headers is None
            assert json.loads(one.data)["message_id"] == "usdm:btcusdt@trade:1"
            await subscriber.close()

    run(test())


def test_core_delivery_acknowledges_nothing_while_nats_is_frozen(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server, "delivery: core", stall_s=0.5) as rig:
            client = await rig.opened()
            with frozen(nats_server.pid):
                client.send(*events(7, 10))
                await client.until(lambda heard: bool(heard.alive) and not heard.alive[-1])
                assert client.heard.acknowledged == 0
            heard = await client.until(lambda heard: len(heard.resumes) == 2)
            assert heard.resumes[1].stored.epoch_seq == (0, 0)
            await Sender(client, events(7, 10)).run()

    run(test())


def test_a_second_link_of_a_stream_replaces_the_first(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            first = await rig.opened()
            second = await rig.opened()
            assert (await first.until_closed()).fenced_by is None
            await Sender(second, events(7, 5)).run()
            assert rig.stats().streams == (TRADE,)

    run(test())


def test_a_batch_of_an_earlier_session_is_ignored(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            client.send(*events(7, 3, first=50), session=client.session + 7)
            await Sender(client, events(7, 5)).run()
            assert trade_ids(await rig.stored()) == [1, 2, 3, 4, 5]

    run(test())


def test_more_than_the_credit_ends_the_link(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            client.send(*events(7, 1024 + MAX_RECORDS))
            await client.until_closed()
            assert await rig.stored() == []

    run(test())


def test_a_lost_link_drops_what_was_not_published(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            client.send(*events(7, 1000))
            client.close()
            stats = await rig.until(lambda stats: not stats.streams)
            assert (stats.queued, stats.in_flight) == (0, 0)
            stored = trade_ids(await rig.stored())
            assert stored == list(range(1, len(stored) + 1))

    run(test())


async def refused_peer(rig: Rig, first_bytes: bytes, *, tcp: bool = False) -> bytes:
    """All that the publisher sends to a peer that begins with `first_bytes`, until it hangs up."""
    stats = rig.stats()
    if tcp:
        host, _, port = stats.tcp_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    else:
        reader, writer = await asyncio.open_unix_connection(stats.unix_path)
    writer.write(first_bytes)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


CHALLENGE_BYTES = 5 + link_codec.NONCE_BYTES


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    "first_bytes",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("<IB", 2**32 - 1, link_codec.HELLO),
        link_codec.frame(link_codec.HELLO, b"{}"),
        link_codec.frame(link_codec.HELLO, b"\x00" * 4000),
        link_codec.frame(
            link_codec.HELLO, '{"proof":"é","stream":"s","epoch":1,"tip":"","version":1}'.encode()
        ),
        link_codec.frame(link_codec.BATCHES, struct.pack("<II", 1, 0)),
        link_codec.hello(
            link_codec.Hello(stream=TRADE, epoch=99, tip=""), b"wrong", b"n" * link_codec.NONCE_BYTES
        ),
        link_codec.hello(
            link_codec.Hello(stream=TRADE, epoch=99, tip=""), SECRET, b"n" * link_codec.NONCE_BYTES
        ),
    ],
    ids=["silence", "http", "4GB", "empty hello", "zeros", "odd proof", "batch", "wrong secret", "replay"],
)
def test_a_peer_without_the_secret_gets_a_nonce_and_changes_nothing(
    nats_server: EmbeddedNats, first_bytes: bytes, tcp: bool
) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened(epoch=7)
            assert len(await refused_peer(rig, first_bytes, tcp=tcp)) in (0, CHALLENGE_BYTES)
            assert rig.stats().errors == 1
            assert rig.stats().streams == (TRADE,)
            await Sender(client, events(7, 5)).run()

    run(test())


@pytest.mark.parametrize(
    "junk",
    [
        link_codec.frame(link_codec.BATCHES, b"short"),
        link_codec.frame(link_codec.BATCHES, struct.pack("<II", 1, 5) + b"x" * 60),
        link_codec.frame(99),
        struct.pack("<IB", 2**32 - 1, link_codec.BATCHES),
    ],
    ids=["short batch", "truncated records", "unknown type", "4GB"],
)
def test_a_proved_peer_that_sends_junk_loses_its_link_alone(nats_server: EmbeddedNats, junk: bytes) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            bad, good = await rig.opened(TRADE), await rig.opened(OTHER)
            bad.write(junk)
            await bad.until_closed()
            await Sender(good, events(7, 5)).run()
            assert rig.stats().streams == (OTHER,)

    run(test())


@pytest.mark.parametrize(
    ("stream", "tip"),
    [
        ("usdm:nonsense", ""),
        ("mars:btcusdt@trade", ""),
        ("", ""),
        (TRADE, "a b"),
        (TRADE, "x\r\nNats-Rollup: all"),
    ],
)
def test_a_hello_that_names_no_stream_or_breaks_headers_is_refused(
    nats_server: EmbeddedNats, stream: str, tip: str
) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.link(stream, tip=tip)
            await client.until_closed()
            assert client.heard.resumes == []
            assert rig.stats().streams == ()

    run(test())


def test_tcp_serves_all_who_know_the_secret(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            host, _, port = rig.stats().tcp_address.rpartition(":")
            client = LinkClient(link_codec.Hello(stream=TRADE, epoch=7, tip=""), SECRET)
            await asyncio.get_running_loop().create_connection(lambda: client, host, int(port))
            await Sender(client, events(7, 100)).run()
            client.close()

    run(test())


def test_the_socket_is_for_this_user_alone_and_replaces_a_stale_one(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        rig = Rig(nats_server)
        stale = rig.host.socket_directory / "p0.sock"
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(str(stale))
        async with rig:
            assert stale.stat().st_mode & 0o777 == 0o600
            assert stale.parent.stat().st_mode & 0o777 == 0o700
            await Sender(await rig.opened(), events(7, 1)).run()
        assert not stale.exists()

    run(test())


def test_a_successor_of_the_same_name_keeps_its_socket_when_the_old_one_ends(
    nats_server: EmbeddedNats,
) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            successor = rig.start_publisher("p0")
            try:
                await asyncio.to_thread(rig.publisher.stop)
                await Sender(await rig.opened(publisher=successor), events(7, 5)).run()
            finally:
                await asyncio.to_thread(successor.stop)

    run(test())


def test_draining_takes_no_new_links_and_ends_when_the_streams_have_left(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            draining = asyncio.create_task(asyncio.to_thread(rig.publisher.drain, 10.0))
            await rig.until(lambda stats: stats.draining)
            with pytest.raises(OSError, match=r"."):
                await rig.link(OTHER)
            await Sender(client, events(7, 50)).run()
            client.write(link_codec.frame(link_codec.BYE))
            stats = await draining
            assert stats.draining
            assert (stats.streams, stats.acknowledged) == ((), 50)

    run(test())


def test_draining_ends_at_its_deadline(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            client = await rig.opened()
            began = time.monotonic()
            stats = await asyncio.to_thread(rig.publisher.drain, 0.05)
            assert time.monotonic() - began < 1.0
            assert stats.streams == (TRADE,)
            await client.until_closed()

    run(test())


def test_stats_and_title_say_what_it_does(nats_server: EmbeddedNats) -> None:
    async def test() -> None:
        async with Rig(nats_server) as rig:
            await Sender(await rig.opened(), events(7, COUNT)).run()
            stats = await rig.until(lambda stats: stats.rate_per_s > 0)
            assert (stats.publisher, stats.pid, stats.node) == ("p0", os.getpid(), "node-1")
            assert stats.ack_p50_ms is not None
            assert stats.ack_p99_ms is not None
            assert 0 < stats.ack_p50_ms <= stats.ack_p99_ms
            assert rig.host.title.startswith("ray::Publisher p0 streams=1 load=")
            assert repr(rig.publisher) == "Publisher(p0)"

    run(test())
