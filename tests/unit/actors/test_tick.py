"""What the controller makes of a cluster, look by look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from actors.pool import Plan
from actors.tick import Tick
from relay.config import parse_config
from relay.errors import BusError
from relay.facts import Facts, Running, Scaling
from relay.ports import ActorId, Role, Silence
from relay.reconcile import MUTE_LIMIT_S
from tests.fakes import FakeCluster
from tests.hosts import PlainHost

NAMES = [f"{symbol}usdt@trade" for symbol in ("btc", "eth", "sol", "bnb", "xrp", "ada")]


def config(*names: str, extra: str = ""):
    shards = "".join(f"- {{stream: {name}}}\n" for name in names or NAMES)
    return parse_config(f"shards:\n{shards}{extra}", {"HOME": "/home/somebody"})


def stream(name: str) -> ActorId:
    return ActorId(Role.STREAM, f"usdm:{name}")


def publisher(name: str) -> ActorId:
    return ActorId(Role.PUBLISHER, name)


@dataclass
class Relay:
    """A controller's tick over a fake cluster, with the time as it says it wants to be called."""

    host: PlainHost
    cluster: FakeCluster = field(default_factory=FakeCluster)
    plan: Plan = field(default_factory=lambda: Plan(Running(1, config()), Scaling(None, "test", 0)))
    now: float = 1_000.0
    ensure: object = None

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """As after a kill of the controller: only the cluster and its facts remain."""
        self.tick = Tick(
            self.cluster, self.host, Facts(self.cluster), self.ensure or (lambda nats, streams: None)
        )

    def run(self, seconds: float = 5.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += self.tick.bring_to(self.plan, self.now)

    def set_count(self, count: int | None) -> None:
        self.plan = replace(self.plan, scaling=Scaling(count, "test", 0))

    def set_config(self, new) -> None:
        self.plan = replace(self.plan, running=Running(self.plan.running.version + 1, new))

    @property
    def served_by(self) -> Counter[str | None]:
        return Counter(stats.publisher for stats in self.cluster.streams.values())


@pytest.fixture
def relay() -> Iterator[Relay]:
    host = PlainHost()
    one = Relay(host)
    one.run()
    yield one
    host.close()


def test_every_stream_gets_an_actor_and_a_publisher(relay):
    assert {stats.stream for stats in relay.cluster.streams.values()} == set(NAMES)
    assert relay.served_by == {"p0": 6}
    assert set(relay.cluster.created.values()) == {1}


def test_once_all_is_well_nothing_is_done_any_more(relay):
    before = relay.cluster.created.copy(), relay.cluster.assigned.copy(), dict(relay.cluster.facts)
    relay.run(120)
    assert (relay.cluster.created, relay.cluster.assigned, relay.cluster.facts) == before


def test_more_publishers_take_over_their_share(relay):
    relay.set_count(3)
    relay.run(2)
    assert sorted(relay.served_by.values()) == [2, 2, 2]


def test_a_leaving_publisher_is_drained_only_when_its_streams_have_left(relay):
    relay.set_count(3)
    relay.run(30)
    relay.set_count(1)
    relay.run(3)
    assert relay.cluster.publishers.keys() == {"p0"}
    assert relay.served_by == {"p0": 6}
    assert relay.cluster.left_behind == []


def test_a_new_controller_changes_nothing(relay):
    relay.set_count(3)
    relay.run(30)
    before = relay.cluster.created.copy(), relay.cluster.assigned.copy(), dict(relay.cluster.facts)
    relay.restart()
    relay.run(30)
    assert (relay.cluster.created, relay.cluster.assigned, relay.cluster.facts) == before


def test_a_new_controller_takes_up_the_drain_of_its_predecessor(relay):
    relay.set_count(2)
    relay.run(30)
    relay.set_count(1)
    while not any(stats.draining for stats in relay.cluster.publishers.values()):
        relay.now += relay.tick.bring_to(relay.plan, relay.now)
    relay.restart()
    relay.run(5)
    assert len(relay.cluster.publishers) == 1
    assert relay.cluster.left_behind == []


def test_a_mute_stream_is_replaced_and_gets_its_publisher_back(relay):
    key = stream("btcusdt@trade")
    relay.cluster.silent[key] = Silence.MUTE
    relay.run(MUTE_LIMIT_S + 3)
    assert relay.cluster.created[key] == 2
    assert relay.cluster.streams[key.key].publisher == "p0"
    assert relay.tick.status.unreachable == ()


def test_an_actor_that_is_being_restarted_is_left_alone(relay):
    relay.cluster.silent[publisher("p0")] = Silence.STARTING
    relay.run(10)
    assert relay.cluster.created[publisher("p0")] == 1


def test_an_actor_that_always_fails_is_tried_ever_less_often(relay):
    key = stream("btcusdt@trade")
    relay.cluster.failing.add(key)
    relay.cluster.silent[key] = Silence.GONE
    relay.run(60)
    assert 4 <= relay.cluster.created[key] <= 8
    assert any("btcusdt@trade failed to start" in problem for problem in relay.tick.status.problems)


def test_streams_that_fled_a_dead_publisher_stay_where_they_are(relay):
    relay.set_count(2)
    relay.run(30)
    fled = [key for key, stats in relay.cluster.streams.items() if stats.publisher == "p0"]
    for key in fled:
        relay.cluster.change(key, publisher="p1")
    relay.cluster.silent[publisher("p0")] = Silence.STARTING
    relay.run(5)
    assert {relay.cluster.streams[key].publisher for key in fled} == {"p1"}
    assert relay.cluster.publishers.keys() == {"p0", "p1"}


def test_a_publisher_alone_without_nats_loses_its_streams(relay):
    relay.set_count(2)
    relay.run(30)
    relay.cluster.publishers["p0"] = replace(relay.cluster.publishers["p0"], connected=False)
    relay.run(6)
    assert relay.served_by == {"p1": 6}


def test_without_nats_anywhere_streams_stay(relay):
    relay.set_count(2)
    relay.run(30)
    before = relay.cluster.assigned.copy()
    for name, stats in relay.cluster.publishers.items():
        relay.cluster.publishers[name] = replace(stats, connected=False)
    relay.run(30)
    assert relay.cluster.assigned == before


def test_a_removed_stream_drains_and_goes_and_an_added_one_comes(relay):
    relay.set_config(config(*NAMES[1:], "dogeusdt@trade"))
    relay.run()
    assert {stats.stream for stats in relay.cluster.streams.values()} == {*NAMES[1:], "dogeusdt@trade"}
    assert not [fact for fact in relay.cluster.facts if "btcusdt" in fact]
    assert relay.cluster.created.total() == len(NAMES) + 2


def test_a_changed_stream_is_made_anew_and_the_others_are_not_touched(relay):
    shards = "shards:\n- {stream: btcusdt@trade, queue: {max_messages: 7}}\n"
    others = "".join(f"- {{stream: {name}}}\n" for name in NAMES[1:])
    before = relay.cluster.assigned.copy()
    relay.set_config(parse_config(shards + others, {"HOME": "/home/somebody"}))
    relay.run()
    assert {key for key, times in relay.cluster.created.items() if times > 1} == {stream("btcusdt@trade")}
    assert {key for key, times in relay.cluster.assigned.items() if times > before[key]} == {
        "usdm:btcusdt@trade"
    }


def test_other_nats_settings_replace_the_publishers_one_generation_after_the_other(relay):
    relay.set_config(config(extra="nats: {servers: [nats://elsewhere:4222]}\n"))
    relay.run()
    assert relay.cluster.publishers.keys() == {"p1"}
    assert relay.served_by == {"p1": 6}
    assert relay.cluster.left_behind == []
    assert all(relay.cluster.created[stream(name)] == 1 for name in NAMES)


def test_closing_down_drains_everything_and_keeps_the_last_figures(relay):
    relay.cluster.change("usdm:btcusdt@trade", spilled=4)
    relay.cluster.silent[stream("ethusdt@trade")] = Silence.STARTING
    for _ in range(20):
        relay.now += relay.tick.close_down(5.0, relay.now)
    ended = relay.tick.taken_down()
    assert relay.tick.ended.is_set()
    assert relay.cluster.actors() == frozenset()
    assert relay.cluster.left_behind == []
    assert ended.left == 4
    assert ended.silent == ("usdm:ethusdt@trade",)
    assert len(ended.streams) == len(NAMES) - 1


def test_the_status_tells_who_is_silent_and_since_when_nothing_starts(relay):
    relay.cluster.stuck.add(publisher("p1"))
    relay.set_count(2)
    relay.run(20)
    status = relay.tick.status
    assert status.unreachable == ("p1",)
    assert (status.scale.mode, status.scale.wanted, status.scale.actual) == ("fixed", 2, 1)
    assert "publisher p1 has not started" in status.problems[0]


def test_streams_stand_in_the_order_of_the_configuration(relay):
    assert [stats.stream for stats in relay.tick.status.streams] == NAMES


def test_a_backlog_brings_publishers_by_itself(relay):
    for key in list(relay.cluster.streams):
        relay.cluster.change(key, queued=100_000, backlog_age_s=9.0)
    relay.run(3)
    assert relay.tick.status.scale.mode == "auto"
    assert len(relay.cluster.publishers) == 6


def test_jetstream_streams_are_made_until_it_worked():
    host, attempts = PlainHost(), []

    def ensure(nats, streams):
        attempts.append(len(streams))
        if len(attempts) < 3:
            raise BusError("NATS is away")

    relay = Relay(host, ensure=ensure)
    seen = set()
    while len(attempts) < 3:
        relay.run(1)
        seen |= set(relay.tick.status.problems)
    assert attempts == [len(NAMES)] * 3
    assert seen == {"NATS is away"}
    assert relay.served_by == {"p0": 6}, "streams start without NATS"
    relay.tick.close()
    host.close()


def test_a_jetstream_stream_that_was_deleted_is_made_again_and_told():
    host, made = PlainHost(), [["SLUICE_usdm_btcusdt_trade"], [], ["SLUICE_usdm_btcusdt_trade"], []]
    looks = []

    def ensure(nats, streams):
        looks.append(len(streams))
        return made[len(looks) - 1] if len(looks) <= len(made) else []

    relay = Relay(host, ensure=ensure)
    relay.run(2)
    assert relay.tick.status.problems == (), "the first time they are made is no trouble"
    while len(looks) < 4:
        relay.run(1)
    relay.run(2)
    (problem,) = relay.tick.status.problems
    assert problem.startswith("SLUICE_usdm_btcusdt_trade was deleted or changed in NATS")
    relay.tick.close()
    host.close()


def test_what_is_under_way_shows_until_it_is_done(relay):
    relay.run()
    assert relay.tick.status.pending == ()
    relay.plan = Plan(Running(2, config(*NAMES[:-1], "dogeusdt@trade")), relay.plan.scaling)
    relay.now += relay.tick.bring_to(relay.plan, relay.now)
    assert set(relay.tick.status.pending) == {f"stream usdm:{NAMES[-1]}", "stream usdm:dogeusdt@trade"}
    relay.run()
    assert relay.tick.status.pending == ()
    assert [one.stream for one in relay.tick.status.ended] == [NAMES[-1]]
