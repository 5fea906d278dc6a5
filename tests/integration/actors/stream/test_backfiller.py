"""Gaps in the ids of trades, healed over the REST side of the simulated exchange.

What counts is what a consumer reads back from JetStream, what stands in the ledger, and that both agree.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.background_audit import BackgroundAudit
from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.nats.consumer import connector
from relay.adapters.nats.ledger_reader import read_ledger
from relay.adapters.nats.provisioning import SIDE_NAME
from relay.audit.audit import Audit
from relay.audit.comparison import StreamComparison, compare
from relay.audit.stream_audit import StreamAudit
from relay.binance.id_gaps import gap_rule
from relay.binance.streams import Venue
from relay.config import Config
from relay.losses.entry import LossEntry, read_entry
from simulator.settings import ExchangeSettings
from tests.support.jetstream import streams_ensured
from tests.support.polling import until
from tests.support.relay_rig import ExchangeThread, Relay, configured

TRADE = "btcusdt@trade"


class Scene:
    """One stream between an exchange that sends what it is given, and NATS."""

    def __init__(self, nats: EmbeddedNats, directory: Path, venue: str, stream: str) -> None:
        settings = ExchangeSettings(venue=Venue(venue), rates={"*": 0.0}, close_timeout_s=0.2)
        self.stream = stream
        self.exchange = ExchangeThread(settings)
        self.nats = nats
        self._directory = directory
        self._venue = venue

    def start(self, extra: str, *, heal: bool, api_key: Path | None, delivery: str) -> None:
        key = f", api_key_file: '{api_key}'" if api_key else ""
        exchange = f"{{venue: {self._venue}, heal: {str(heal).lower()}{key}}}"
        text = f"exchange: {exchange}\nnats: {{delivery: {delivery}}}\nshards: ['{self.stream}']\n{extra}"
        self.config: Config = configured(text, self.exchange, self.nats, self._directory)
        asyncio.run(streams_ensured(self.config))
        self.relay = Relay(self.config, publishers=1)
        self.exchange.run(self.exchange.server.wait_subscribed(self.stream))

    @property
    def server(self) -> Any:
        return self.exchange.server

    @property
    def actor(self) -> Any:
        return next(iter(self.relay.streams.values()))

    def do(self, action: Any) -> None:
        self.exchange.call(action)

    def send(self, count: int) -> None:
        """Make events, whether anybody listens or not, and wait until they are made."""
        made = self.made() + count
        self.do(lambda: self.server.emit(self.stream, count))
        until(lambda: self.made() == made)

    def made(self) -> int:
        sent = self.exchange.call(lambda: self.server.sent().get(self.stream))
        return sent.events + sent.unseen if sent else 0

    def gap(self, missing: int, behind: int = 5) -> None:
        self.do(lambda: self.server.skip(self.stream, missing))
        self.send(missing + behind)

    def restart_stream(self, meanwhile: int) -> None:
        """The actor ends without any notice, and its successor finds that `meanwhile` events were sent."""
        self.actor.stop()
        until(lambda: not self.server.clients)
        self.send(meanwhile)
        self.relay.restart(next(iter(self.relay.streams)))
        self.exchange.run(self.server.wait_subscribed(self.stream))

    def stored(self) -> list[dict[str, Any]]:
        (one,) = self.config.streams
        return [each for each in self._read(one.spec.jetstream_name) if each["subject"] == one.subject]

    def ids(self) -> list[int]:
        return [int(each["body"]["message_id"].rpartition(":")[2]) for each in self.stored()]

    def repairs(self) -> list[dict[str, Any]]:
        return [each for each in self._read(SIDE_NAME) if each["subject"].endswith(".repair")]

    def ledger(self) -> list[LossEntry]:
        return [each["entry"] for each in self._read(SIDE_NAME) if "entry" in each]

    def audited(self) -> tuple[list[StreamAudit], list[StreamComparison]]:
        """What a consumer finds, and what that comes to against the exchange's account."""
        with BackgroundAudit(self.config, Audit(gap_rule), from_start=True) as reader:
            assert reader.caught_up(10.0)
        found = reader.audit.report()
        return found, compare(self.exchange.sent(self._venue), found, {})

    def _read(self, name: str) -> list[dict[str, Any]]:
        async def read() -> list[dict[str, Any]]:
            client = await connector(self.config.nats)()
            try:
                manager = client.jsm()
                state = (await manager.stream_info(name)).state
                found = []
                for sequence in range(state.first_seq, state.last_seq + 1) if state.messages else ():
                    message = await manager.get_msg(name, seq=sequence)
                    found.append(_opened(message.subject, message.headers or {}, message.data or b""))
                return found
            finally:
                await client.close()

        return asyncio.run(read())

    def close(self) -> None:
        if hasattr(self, "relay"):
            self.relay.close()
        self.exchange.close()


def _opened(subject: str, headers: dict[str, str], data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {"subject": subject, "headers": headers}
    if subject.startswith("sluice.loss."):
        return found | {"entry": read_entry(data)}
    return found | ({"body": orjson.loads(data)} if data else {})


@pytest.fixture
def scene(nats_server: EmbeddedNats, tmp_path: Path) -> Iterator[Any]:
    scenes: list[Scene] = []

    def make(
        venue: str = "spot",
        stream: str = TRADE,
        extra: str = "",
        heal: bool = True,
        api_key: Path | None = None,
        delivery: str = "jetstream",
    ) -> Scene:
        scenes.append(Scene(nats_server, tmp_path, venue, stream))
        scenes[-1].start(extra, heal=heal, api_key=api_key, delivery=delivery)
        return scenes[-1]

    yield make
    for one in scenes:
        one.close()


def contiguous(ids: list[int]) -> bool:
    return all(later == earlier + 1 for earlier, later in pairwise(ids))


@pytest.mark.parametrize(
    ("venue", "stream"),
    [
        ("spot", "btcusdt@trade"),
        ("spot", "btcusdt@aggTrade"),
        ("usdm", "btcusdt@trade"),
        ("usdm", "btcusdt@aggTrade"),
        ("coinm", "btcusd_perp@trade"),
        ("coinm", "btcusd_perp@aggTrade"),
    ],
)
def test_a_gap_is_healed_in_its_place_with_the_exchanges_own_bytes(
    scene: Any, venue: str, stream: str
) -> None:
    one = scene(venue, stream)
    one.send(20)
    one.gap(missing=30)
    until(lambda: one.actor.stats().acknowledged == 55)
    ids = one.ids()
    assert len(ids) == 55 and contiguous(ids)
    healed = [each for each in one.stored() if each["headers"].get("Sluice-Healed") == "1"]
    assert [int(each["body"]["message_id"].rpartition(":")[2]) for each in healed] == ids[20:50]
    made = [orjson.loads(each) for each in one.server.history(stream).newest(55)]
    assert [each["body"]["data"] for each in one.stored()] == made
    assert [list(each["body"]["data"]) for each in one.stored()] == [list(each) for each in made]
    (found,), (outcome,) = one.audited()
    assert (found.healed, found.lost, found.clean) == (30, 0, True)
    assert outcome.passed and outcome.sent == 55
    (entry,) = one.ledger()
    assert (entry.first_id, entry.last_id, entry.count, entry.healed) == (ids[20], ids[49], 30, True)
    assert entry.subject == one.config.streams[0].subject
    stats = one.actor.stats()
    assert (stats.lost, stats.healed, stats.repaired, stats.balanced) == (0, 30, 0, True)


def test_what_comes_too_late_goes_to_the_subject_of_repairs_and_the_ledger_says_so(scene: Any) -> None:
    one = scene()
    one.send(10)
    one.do(lambda: one.server.refuse_rest(429, retry_after_s=3, count=1))
    one.gap(missing=4)
    until(lambda: one.actor.stats().repaired == 4)
    until(lambda: len(one.ledger()) == 2)
    ids = one.ids()
    assert contiguous(ids[:10]) and contiguous(ids[10:])
    missing = list(range(ids[9] + 1, ids[10]))
    lost, healed = one.ledger()
    assert (lost.first_id, lost.last_id, lost.count, lost.healed) == (missing[0], missing[-1], 4, False)
    assert "2 s" in lost.reason
    announced = healed.first_id, healed.last_id, healed.count, healed.healed
    assert announced == (missing[0], missing[-1], 4, True)
    repairs = one.repairs()
    assert [int(each["body"]["data"]["t"]) for each in repairs] == missing
    assert {each["subject"] for each in repairs} == {healed.subject} == {"binance.spot.btcusdt.trade.repair"}
    assert all(each["headers"]["Sluice-Healed"] == "1" for each in repairs)
    assert one.server.rest_limiter.attempts == 2, "not before Retry-After"
    stats = one.actor.stats()
    assert (stats.lost, stats.healed, stats.repaired, stats.balanced) == (4, 0, 4, True)
    assert asyncio.run(read_ledger(one.config.nats, time.time_ns() - 60 * 10**9)).entries == [lost, healed]
    (found,), (outcome,) = one.audited()
    assert (found.lost, found.repaired, found.clean) == (0, 4, True)
    assert outcome.passed, outcome


def test_a_gap_is_announced_when_rest_is_down_and_what_came_behind_it_goes_on(scene: Any) -> None:
    one = scene()
    one.send(10)
    one.do(lambda: one.server.refuse_rest("reset"))
    one.gap(missing=4, behind=7)
    until(lambda: one.actor.stats().acknowledged == 17)
    until(lambda: len(one.ledger()) == 1)
    (lost,) = one.ledger()
    assert (lost.count, lost.healed, lost.suspect) == (4, False, False)
    assert len(one.ids()) == 17 and one.actor.stats().lost == 4


def test_a_refusal_for_good_is_not_waited_for(scene: Any) -> None:
    one = scene("usdm")
    one.send(10)
    one.do(lambda: one.server.refuse_rest(404))
    one.gap(missing=4)
    until(lambda: len(one.ledger()) == 1)
    (lost,) = one.ledger()
    assert (lost.healed, lost.suspect) == (False, True)
    assert "HTTP 404" in lost.reason
    assert one.server.rest_limiter.attempts == 1


@pytest.mark.parametrize("journal", ["", "journal: off\n"])
def test_a_restarted_stream_actor_heals_its_own_gap(scene: Any, journal: str) -> None:
    one = scene("usdm", extra=journal)
    one.send(20)
    until(lambda: one.actor.stats().acknowledged == 20)
    one.restart_stream(meanwhile=40)
    one.send(5)
    until(lambda: len(one.ids()) == 65)
    assert contiguous(one.ids())
    assert (one.actor.stats().healed, one.actor.stats().lost) == (40, 0)
    assert [(entry.count, entry.healed, entry.cause) for entry in one.ledger()] == [(40, True, "disconnect")]


def test_a_kill_while_a_gap_holds_up_events_loses_none_of_them(scene: Any) -> None:
    one = scene()
    one.send(10)
    until(lambda: one.actor.stats().acknowledged == 10)
    one.do(lambda: one.server.refuse_rest("hang"))
    one.gap(missing=3, behind=30)
    until(lambda: one.server.rest_limiter.attempts == 1)
    assert one.actor.stats().received == 10
    one.do(one.server.accept_rest)
    one.restart_stream(meanwhile=2)
    one.send(1)
    until(lambda: len(one.ids()) == 46)
    assert contiguous(one.ids())
    assert [(entry.count, entry.healed) for entry in one.ledger()] == [(35, True)]


def test_a_new_gap_does_not_wait_behind_an_old_ones_request(scene: Any) -> None:
    one = scene()
    one.send(10)
    one.do(lambda: one.server.refuse_rest(503))
    one.gap(missing=4)
    until(lambda: one.actor.stats().lost == 4)
    one.do(lambda: one.server.refuse_rest("hang", count=1))
    until(lambda: one.server.rest_limiter.accepting)
    one.gap(missing=3)
    until(lambda: one.actor.stats().healed == 3)
    until(lambda: one.actor.stats().repaired == 4)
    assert one.actor.stats().lost == 4


def test_the_next_incarnation_goes_on_with_what_the_last_one_could_not_heal(scene: Any) -> None:
    one = scene()
    one.send(10)
    one.do(one.server.refuse_rest)
    one.gap(missing=4)
    until(lambda: len(one.ledger()) == 1)
    until(lambda: one.actor.stats().acknowledged == 15)
    one.do(one.server.accept_rest)
    one.restart_stream(meanwhile=0)
    until(lambda: one.actor.stats().repaired == 4)
    until(lambda: len(one.ledger()) == 2)
    lost, healed = one.ledger()
    assert (healed.first_id, healed.last_id, healed.healed) == (lost.first_id, lost.last_id, True)
    assert (healed.from_ns, healed.cause) == (lost.from_ns, lost.cause)
    one.restart_stream(meanwhile=0)
    one.send(3)
    until(lambda: len(one.ids()) == 18)
    assert len(one.repairs()) == 4, "and then it is done with"


def test_the_next_incarnation_knows_that_the_exchange_wants_no_requests(scene: Any) -> None:
    one = scene()
    one.send(10)
    one.do(lambda: one.server.refuse_rest(429, retry_after_s=600, count=1))
    one.gap(missing=4)
    until(lambda: one.actor.stats().acknowledged == 15)
    one.restart_stream(meanwhile=3)
    one.send(1)
    until(lambda: one.actor.stats().acknowledged == 1)
    assert one.server.rest_limiter.attempts == 1
    assert [entry.count for entry in one.ledger() if not entry.healed] == [4, 3]


@pytest.mark.parametrize("key", [True, False])
def test_futures_give_single_trades_beyond_the_newest_thousand_to_a_key_alone(
    scene: Any, tmp_path: Path, key: bool
) -> None:
    (tmp_path / "key").write_text("abc123\n")
    one = scene("usdm", api_key=tmp_path / "key" if key else None)
    one.send(3)
    one.gap(missing=1500, behind=10)
    until(lambda: one.actor.stats().acknowledged == (1513 if key else 1003))
    assert one.actor.stats().lost == (0 if key else 510)
    until(lambda: len(one.ledger()) == (1 if key else 2))
    reasons = [entry.reason for entry in one.ledger() if not entry.healed]
    assert all("api_key_file" in reason for reason in reasons)


def test_a_stopped_stream_says_what_it_could_not_heal(scene: Any) -> None:
    one = scene()
    one.send(10)
    one.do(lambda: one.server.refuse_rest("hang"))
    one.gap(missing=3, behind=30)
    until(lambda: one.server.rest_limiter.attempts == 1)
    assert one.actor.drain(5.0).acknowledged == 40
    (lost,) = one.ledger()
    assert (lost.count, lost.healed) == (3, False)
    assert len(one.ids()) == 40
    one.do(one.server.accept_rest)


def test_without_healing_a_gap_is_announced_at_once(scene: Any) -> None:
    one = scene(heal=False)
    one.send(10)
    one.gap(missing=3)
    until(lambda: one.actor.stats().acknowledged == 15)
    until(lambda: [entry.reason for entry in one.ledger()] == ["exchange.heal is off"])
    assert one.server.rest_limiter.attempts == 0


def test_depth_updates_are_announced_and_never_asked_for(scene: Any) -> None:
    one = scene(stream="btcusdt@depth@100ms")
    one.send(10)
    one.gap(missing=3)
    until(lambda: one.actor.stats().acknowledged == 15)
    until(lambda: len(one.ledger()) == 1)
    (lost,) = one.ledger()
    assert (lost.count, lost.healed, lost.suspect) == (None, False, False)
    assert one.server.rest_limiter.attempts == 0


def test_with_core_delivery_gaps_are_healed_as_well(scene: Any) -> None:
    one = scene(delivery="core")
    with BackgroundAudit(one.config, Audit(gap_rule), from_start=False) as reader:
        one.send(10)
        one.gap(missing=3)
        until(lambda: reader.audit.stored(f"spot:{TRADE}") == 18)
        one.do(lambda: one.server.refuse_rest(503))
        one.gap(missing=4)
        until(lambda: one.actor.stats().lost == 4)
        one.do(one.server.accept_rest)
        until(lambda: one.actor.stats().repaired == 4)
        until(lambda: [found.repaired for found in reader.audit.report()] == [4])
    (found,) = reader.audit.report()
    assert (found.healed, found.lost, found.stored) == (3, 0, 23)


def test_a_full_stream_that_may_not_spill_still_tells_what_it_lost(scene: Any) -> None:
    one = scene(extra="queue: {max_messages: 10, overflow: drop_newest}\n")
    one.send(5)
    until(lambda: one.actor.stats().acknowledged == 5)
    one.nats.stop()
    one.do(lambda: one.server.refuse_rest(404))
    one.send(20)
    one.gap(missing=3)
    until(lambda: one.actor.stats().lost == 3)
    one.nats.start()
    until(lambda: one.actor.stats().backlog_count == 0)
    until(lambda: [entry.count for entry in one.ledger()] == [3])
    assert one.actor.stats().balanced
