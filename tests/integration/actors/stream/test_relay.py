"""The stream actor over real sockets: an exchange on one side, a scripted publisher on the other."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from math import inf
from pathlib import Path

import orjson
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from actors.stream.actor import StreamActor
from actors.stream.feed_keeper import FeedKeeper
from actors.stream.relay import StreamRelay
from actors.stream.start import FreshStart
from relay.config import StreamSettings, parse_config
from relay.delivery import link_codec
from relay.errors import FencedError
from relay.model.assignment import Assignment, PublisherEndpoint
from relay.model.choices import Overflow
from relay.model.position import StoredPosition
from relay.model.record_batch import MAX_RECORDS, RecordKind
from relay.model.stats import StreamState
from relay.observability.metrics import BOUNDS_S, Metric, NoMetrics
from tests.support.hosts import SECRET, PlainHost
from tests.support.polling import until
from tests.support.records import Record, records_in

KEY = "usdm:btcusdt@trade"


def trade(number: int) -> str:
    fields = {"e": "trade", "E": 1, "T": 1, "s": "BTCUSDT", "t": number, "p": "1.0", "q": "2", "X": "MARKET"}
    return orjson.dumps(fields | {"m": True}).decode()


class LoopThread:
    """An event loop beside the actor's, as the other process would have it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


class Exchange:
    """Sends what the test hands it, to the client that is connected."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.changed = asyncio.Event()

    async def start(self) -> None:
        self._server = await serve(self._serve, "127.0.0.1", 0, compression=None)
        self.url = f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        self.changed.set()
        await connection.wait_closed()
        self.connections.remove(connection)

    async def send(self, numbers: range) -> None:
        while not self.connections:
            self.changed.clear()
            await self.changed.wait()
        for number in numbers:
            await self.connections[-1].send(trade(number))

    async def broadcast(self, numbers: range) -> None:
        for number in numbers:
            for connection in list(self.connections):
                with suppress(ConnectionClosed):
                    await connection.send(trade(number))

    async def cut(self) -> None:
        for connection in list(self.connections):
            connection.transport.abort()
            await connection.wait_closed()

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()


class ScriptedPublisher:
    """Speaks the link; keeps what it gets and acknowledges when the test asks it to."""

    def __init__(self, name: str, host: PlainHost) -> None:
        self.name = name
        self.path = str(host.socket_directory / f"{name}.sock")
        self.hellos: list[link_codec.Hello] = []
        self.records: list[Record] = []
        self.resume_at = (0, 0)
        self.alive = True
        self.acknowledging = True
        self.max_messages = 1000
        self._session = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def endpoint(self) -> PublisherEndpoint:
        return PublisherEndpoint(publisher=self.name, node="node-1", unix_path=self.path, tcp_address="")

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._tasks.append(asyncio.current_task())
        nonce = b"n" * link_codec.NONCE_BYTES
        writer.write(link_codec.frame(link_codec.CHALLENGE, nonce))
        beat = asyncio.create_task(self._beat(writer))
        splitter = link_codec.MessageDecoder(link_codec.MAX_MESSAGE_BYTES)
        try:
            while data := await reader.read(1 << 16):
                for kind, body in splitter.feed(data):
                    self._take(kind, body, nonce, writer)
        except ConnectionError:
            pass
        finally:
            beat.cancel()
            writer.close()

    async def _beat(self, writer: asyncio.StreamWriter) -> None:
        while True:
            if self.alive:
                writer.write(link_codec.alive(True))
            await asyncio.sleep(0.3)

    def _take(self, kind: int, body: bytes, nonce: bytes, writer: asyncio.StreamWriter) -> None:
        if kind == link_codec.HELLO:
            self.hellos.append(link_codec.read_hello(body, SECRET, nonce))
            self._session += 1
            writer.write(
                link_codec.resume(
                    link_codec.Resume(
                        self._session, StoredPosition(*self.resume_at), self.max_messages, 1 << 20
                    )
                )
            )
        elif kind == link_codec.BATCHES:
            session, skip, batches = link_codec.read_batches(body)
            records = [record for batch in batches for record in records_in(batch)]
            self.records += records[skip:]
            if self.acknowledging and session == self._session:
                writer.write(link_codec.ack(session, time.time_ns(), [(records[-1].offset, 0, 0)]))

    async def acknowledge_all(self) -> None:
        self._writers[-1].write(
            link_codec.ack(self._session, time.time_ns(), [(self.records[-1].offset, 0, 0)])
        )

    async def refuse(self, offset: int) -> None:
        self._writers[-1].write(link_codec.refused(link_codec.Refused(self._session, offset, "too large")))

    async def acknowledge_as_answered_after(self, answered_us: int) -> None:
        marks = [(self.records[-1].offset, 0, answered_us)]
        self._writers[-1].write(link_codec.ack(self._session, time.time_ns(), marks))

    async def fence(self, epoch: int) -> None:
        self._writers[-1].write(link_codec.fenced(epoch))

    async def die(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def numbers(self) -> list[int]:
        return [record.event_id for record in self.records if record.kind == RecordKind.EVENT]


class Counted(NoMetrics):
    """Keeps the totals of counters and buckets."""

    def __init__(self) -> None:
        self.totals: Counter[tuple[Metric | str, ...]] = Counter()

    def add(self, metric: Metric, tags: tuple[str, ...], amount: float) -> None:
        self.totals[metric, *tags] += amount


class Rig:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.host = PlainHost()
        self.outside = LoopThread()
        self.exchange = Exchange()
        self.run(self.exchange.start())
        self.publishers: list[ScriptedPublisher] = []
        self.actors: list[StreamActor] = []
        self._version = 0

    def run(self, coroutine: object) -> object:
        return self.outside.run(coroutine)

    def publisher(self, name: str) -> ScriptedPublisher:
        publisher = ScriptedPublisher(name, self.host)
        self.run(publisher.start())
        self.publishers.append(publisher)
        return publisher

    def settings(self, extra: str = "") -> StreamSettings:
        text = (
            f"exchange: {{url: '{self.exchange.url}'}}\njournal: {{directory: '{self.directory}'}}\n"
            f"shards: [btcusdt@trade]\n{extra}"
        )
        return parse_config(text, {}).streams[0]

    def assignment(self, assigned: str) -> Assignment:
        self._version += 1
        endpoints = tuple(publisher.endpoint for publisher in self.publishers)
        return Assignment(version=self._version, publisher=assigned, endpoints=endpoints)

    def actor(self, assigned: str = "p0", extra: str = "") -> StreamActor:
        self.host.assignments[KEY] = self.assignment(assigned)
        actor = StreamActor(self.settings(extra), self.host)
        self.actors.append(actor)
        return actor

    def send(self, numbers: range) -> None:
        self.run(self.exchange.send(numbers))

    def close(self) -> None:
        for actor in self.actors:
            actor.stop()
        for publisher in self.publishers:
            self.run(publisher.die())
        self.run(self.exchange.stop())
        self.outside.close()
        self.host.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "journal")
    yield rig
    rig.close()


def test_events_reach_the_publisher_in_order_and_leave_when_acknowledged(rig: Rig) -> None:
    publisher = rig.publisher("p0")
    actor = rig.actor()
    rig.send(range(1, 501))
    until(lambda: actor.stats().acknowledged == 500)
    stats = actor.stats()
    assert publisher.numbers() == list(range(1, 501))
    assert [record.seq for record in publisher.records] == list(range(1, 501))
    assert (stats.state, stats.publisher, stats.backlog_count) == (StreamState.LIVE, "p0", 0)
    assert stats.balanced


def test_the_time_before_the_write_to_nats_is_told_apart_from_the_time_until_its_answer(rig: Rig) -> None:
    counted = rig.host.metrics = Counted()
    publisher = rig.publisher("p0")
    publisher.acknowledging = False
    actor = rig.actor()
    rig.send(range(1, 11))
    until(lambda: publisher.numbers() == list(range(1, 11)))
    # So long that nothing is left for the way to NATS, whatever this machine does meanwhile.
    rig.run(publisher.acknowledge_as_answered_after(10**9))
    until(lambda: actor.stats().acknowledged == 10)
    stats = actor.stats()
    assert stats.relay_latency_p99_ms < 0.001 < stats.latency_p50_ms
    until(lambda: counted.totals[Metric.STREAM_LATENCY, KEY, "+Inf"] == 10)
    assert counted.totals[Metric.STREAM_RELAY_LATENCY, KEY, str(BOUNDS_S[0])] == 10


def test_a_dead_publisher_costs_a_resend_to_the_next_one(rig: Rig) -> None:
    first, second = rig.publisher("p0"), rig.publisher("p1")
    first.acknowledging = False
    actor = rig.actor()
    rig.send(range(1, 101))
    until(lambda: len(first.numbers()) == 100)
    second.resume_at = (actor.stats().epoch, 40)
    rig.run(first.die())
    until(lambda: actor.stats().acknowledged == 100)
    assert second.numbers() == list(range(41, 101))
    assert second.hellos[0].tip == "", "after an unclean end only NATS knows the tip"


def test_a_silent_publisher_is_left_though_its_socket_is_open(rig: Rig) -> None:
    first, second = rig.publisher("p0"), rig.publisher("p1")
    first.acknowledging = False
    actor = rig.actor()
    rig.send(range(1, 11))
    until(lambda: len(first.numbers()) == 10)
    first.alive = False
    until(lambda: actor.stats().acknowledged == 10)
    assert second.numbers() == list(range(1, 11))
    assert actor.stats().failovers == 1


def test_a_handover_waits_for_what_is_in_flight_and_repeats_nothing(rig: Rig) -> None:
    first, second = rig.publisher("p0"), rig.publisher("p1")
    first.acknowledging = False
    actor = rig.actor()
    rig.send(range(1, 51))
    until(lambda: len(first.numbers()) == 50)
    actor.assign(rig.assignment("p1"))
    rig.send(range(51, 61))
    until(lambda: actor.stats().queued == 10)
    rig.run(first.acknowledge_all())
    until(lambda: actor.stats().acknowledged == 60)
    assert second.numbers() == list(range(51, 61))
    assert second.hellos[0].tip == f"{KEY}:50"
    assert actor.stats().failovers == 0


def resumed(rig: Rig, publisher: ScriptedPublisher, first: StreamActor, seq: int) -> StreamActor:
    """The next incarnation, to which the publisher answers that `seq` of the `first` is stored last."""
    epoch = first.stats().epoch
    first.stop()
    publisher.records.clear()
    publisher.acknowledging = True
    publisher.resume_at = (epoch, seq)
    return rig.actor()


def test_the_next_incarnation_resumes_from_the_journal(rig: Rig) -> None:
    publisher = rig.publisher("p0")
    publisher.acknowledging = False
    first = rig.actor()
    rig.send(range(1, 31))
    until(lambda: len(publisher.numbers()) == 30)
    epoch = first.stats().epoch
    second = resumed(rig, publisher, first, 12)
    until(lambda: second.stats().acknowledged == 30)
    assert publisher.numbers() == list(range(13, 31))
    stats = second.stats()
    assert stats.epoch > epoch
    assert (stats.recovered, stats.received, stats.balanced) == (30, 30, True)


def test_a_journal_goes_on_behind_a_part_of_it_that_was_stored_before(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.stream.link_keeper.REFILL_BYTES", 1000)
    publisher = rig.publisher("p0")
    publisher.acknowledging = False
    first = rig.actor()
    for begin in range(1, 101, 10):
        rig.send(range(begin, begin + 10))
        until(lambda begin=begin: len(publisher.numbers()) == begin + 9)
    second = resumed(rig, publisher, first, 70)
    until(lambda: second.stats().acknowledged == 100)
    assert publisher.numbers() == list(range(71, 101))


def test_a_gap_behind_the_last_incarnation_is_announced(rig: Rig) -> None:
    publisher = rig.publisher("p0")
    publisher.acknowledging = False
    first = rig.actor()
    rig.send(range(1, 31))
    until(lambda: len(publisher.numbers()) == 30)
    first.stop()
    until(lambda: rig.exchange.connections == [])
    publisher.acknowledging = True
    second = rig.actor()
    until(lambda: len(rig.exchange.connections) == 1)
    rig.send(range(36, 41))
    until(lambda: second.stats().acknowledged == 35)
    (loss,) = [orjson.loads(record.payload) for record in publisher.records if record.kind == RecordKind.LOSS]
    assert (loss["first_id"], loss["last_id"], loss["count"], loss["cause"]) == (31, 35, 5, "disconnect")
    assert second.stats().lost == 5


def test_nothing_is_lost_while_no_publisher_is_there(rig: Rig) -> None:
    actor = rig.actor(extra="queue: {max_messages: 100}")
    rig.send(range(1, 1001))
    until(lambda: actor.stats().received == 1000)
    assert actor.stats().spilled == 900
    publisher = rig.publisher("p0")
    actor.assign(rig.assignment("p0"))
    until(lambda: actor.stats().acknowledged == 1000)
    assert publisher.numbers() == list(range(1, 1001))
    assert actor.stats().balanced


def test_drain_stops_reading_flushes_and_reports(rig: Rig) -> None:
    publisher = rig.publisher("p0")
    actor = rig.actor()
    rig.send(range(1, 101))
    until(lambda: actor.stats().received == 100)
    stats = actor.drain(5.0)
    assert (stats.state, stats.backlog_count, stats.acknowledged) == (StreamState.STOPPED, 0, 100)
    assert publisher.numbers() == list(range(1, 101))
    until(lambda: rig.exchange.connections == [])


def test_what_a_drain_cannot_flush_stays_in_the_journal(rig: Rig) -> None:
    publisher = rig.publisher("p0")
    publisher.acknowledging = False
    actor = rig.actor()
    rig.send(range(1, 11))
    until(lambda: len(publisher.numbers()) == 10)
    assert actor.drain(0.2).backlog_count == 10
    publisher.acknowledging = True
    successor = rig.actor()
    until(lambda: successor.stats().acknowledged == 10)
    assert successor.stats().recovered == 10


def test_the_feed_comes_back_after_a_cut(rig: Rig) -> None:
    publisher = rig.publisher("p0")
    actor = rig.actor()
    rig.send(range(1, 11))
    until(lambda: actor.stats().acknowledged == 10)
    rig.run(rig.exchange.cut())
    rig.send(range(11, 21))
    until(lambda: actor.stats().acknowledged == 20)
    assert publisher.numbers() == list(range(1, 21))
    assert (actor.stats().reconnects, actor.stats().lost) == (1, 0)


def test_a_replaced_connection_shows_in_the_figures_and_in_no_event(rig: Rig) -> None:
    publisher = rig.publisher("p0")
    rig.host.assignments[KEY] = rig.assignment("p0")
    actor = StreamActor(rig.settings().model_copy(update={"rotate_after_s": 0.1}), rig.host)
    rig.actors.append(actor)
    until(lambda: bool(rig.exchange.connections))
    sent = 0
    while actor.stats().rotations < 2:
        rig.run(rig.exchange.broadcast(range(sent + 1, sent + 11)))
        sent += 10
    until(lambda: actor.stats().acknowledged == sent)
    assert publisher.numbers() == list(range(1, sent + 1))
    stats = actor.stats()
    assert (stats.repeated, stats.lost, stats.reconnects, stats.unaligned) == (0, 0, 0, 0)


def test_a_block_stream_stops_reading_and_goes_on_without_a_loss(rig: Rig) -> None:
    publisher = rig.publisher("p0")
    publisher.acknowledging = False
    publisher.max_messages = 5
    actor = rig.actor(extra="queue: {max_messages: 10, overflow: block}\n")
    rig.send(range(1, 1001))
    # What was read together goes on together: at most one batch is over the credit, and one over the limit.
    until(lambda: actor.stats().state is StreamState.BLOCKED and len(publisher.records) >= 5)
    assert len(publisher.records) < 5 + MAX_RECORDS
    publisher.acknowledging = True
    rig.run(publisher.acknowledge_all())
    until(lambda: actor.stats().acknowledged == 1000)
    assert publisher.numbers() == list(range(1, 1001))
    assert actor.stats().state is StreamState.LIVE


def test_a_stream_that_is_behind_pauses_reads_and_one_that_keeps_up_does_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses_s: list[float] = []

    def pause_reads_for(feed: FeedKeeper, pause_s: float) -> None:
        pauses_s.append(pause_s)
        real_pause(feed, pause_s)

    real_pause = FeedKeeper.pause_reads_for
    monkeypatch.setattr(FeedKeeper, "pause_reads_for", pause_reads_for)
    # Whatever the rate at which this machine sends.
    monkeypatch.setattr("relay.feed.read_coalescing.MIN_FILL_S", 0.0)
    monkeypatch.setattr("relay.feed.read_coalescing.MAX_FILL_S", inf)
    publisher = rig.publisher("p0")
    actor = rig.actor()
    rig.send(range(1, 2))
    until(lambda: actor.stats().acknowledged == 1)
    assert pauses_s == []
    publisher.acknowledging = False
    numbers = count(2)

    def behind() -> bool:
        number = next(numbers)
        rig.send(range(number, number + 1))
        return bool(pauses_s)

    until(behind)
    publisher.acknowledging = True
    rig.run(publisher.acknowledge_all())
    last = next(numbers)
    rig.send(range(last, last + 1))
    until(lambda: actor.stats().acknowledged == last)
    assert publisher.numbers() == list(range(1, last + 1))


def test_an_event_that_nats_can_never_take_is_rejected_and_the_rest_goes_on(rig: Rig) -> None:
    publisher = rig.publisher("p0")
    publisher.acknowledging = False
    actor = rig.actor()
    rig.send(range(1, 4))
    until(lambda: len(publisher.numbers()) == 3)
    rig.run(publisher.refuse(publisher.records[1].offset))
    until(lambda: actor.stats().rejected == 1)
    until(lambda: any(record.kind == RecordKind.REJECTED for record in publisher.records))
    rig.run(publisher.acknowledge_all())
    until(lambda: actor.stats().acknowledged == 2)
    assert actor.stats().balanced


def test_the_log_has_a_line_for_each_change_of_state_and_none_for_an_event(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publisher = rig.publisher("p0")
    publisher.acknowledging = False
    publisher.max_messages = 5
    actor = rig.actor(extra="queue: {max_messages: 10, overflow: block}\n")
    rig.send(range(1, 3))
    until(lambda: "live, was connecting: btcusdt@trade live" in caplog.text)
    rig.send(range(3, 301))
    until(lambda: "blocked, was live: btcusdt@trade blocked backlog=" in caplog.text)
    publisher.acknowledging = True
    rig.run(publisher.acknowledge_all())
    until(lambda: actor.stats().acknowledged == 300)
    until(lambda: "live, was blocked: btcusdt@trade live" in caplog.text)
    assert len([record for record in caplog.records if record.name.startswith("actors.")]) < 10


def test_the_title_shows_the_backlog(rig: Rig) -> None:
    rig.actor()
    rig.send(range(1, 8))
    until(lambda: rig.host.title == "ray::Stream btcusdt@trade backlog=7")


def test_a_start_above_the_fence_follows_one_below_it_though_there_is_no_journal(rig: Rig) -> None:
    """As after a clock that was set back: the time of day alone gives too low an epoch, again and again."""
    publisher = rig.publisher("p0")
    rig.host.assignments[KEY] = rig.assignment("p0")
    settings = rig.settings().model_copy(update={"journal": False, "overflow": Overflow.DROP_OLDEST})

    async def fenced() -> tuple[int, int]:
        relay = StreamRelay(settings, rig.host, FreshStart(settings, rig.host))
        life = asyncio.create_task(relay.run())
        await asyncio.to_thread(until, lambda: relay.links.linked)
        later = relay.epoch + 3_600_000
        rig.run(publisher.fence(later))
        with pytest.raises(ExceptionGroup) as ended:
            await life
        assert ended.group_contains(FencedError)
        return relay.epoch, later

    first, later = asyncio.run(fenced())
    assert first < later
    assert asyncio.run(fenced())[0] == later + 1
