"""What the controller makes of a cluster, look by look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from actors.controller.plan import Plan
from actors.controller.reconcile_loop import ReconcileLoop
from relay.config import parse_config
from relay.control.reconcile import UNRESPONSIVE_LIMIT_S
from relay.control.store import ControlStore, Running, Scaling
from relay.errors import BusError
from relay.model.actors import ActorId, Role, Silence
from relay.model.stats import LegState
from tests.support.fakes import FakeCluster
from tests.support.hosts import PlainHost

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
        self.loop = ReconcileLoop(
            self.cluster, self.host, ControlStore(self.cluster), self.ensure or (lambda nats, streams: None)
        )

    def run(self, seconds: float = 5.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += self.loop.bring_towards(self.plan, self.now)

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
        relay.now += relay.loop.bring_towards(relay.plan, relay.now)
    relay.restart()
    relay.run(5)
    assert len(relay.cluster.publishers) == 1
    assert relay.cluster.left_behind == []


def test_a_mute_stream_is_replaced_and_gets_its_publisher_back(relay):
    key = stream("btcusdt@trade")
    relay.cluster.silent[key] = Silence.UNRESPONSIVE
    relay.run(UNRESPONSIVE_LIMIT_S + 3)
    assert relay.cluster.created[key] == 2
    assert relay.cluster.streams[key.key].publisher == "p0"
    assert relay.loop.report.status.unreachable == ()


def test_an_actor_that_is_being_restarted_is_left_alone(relay):
    relay.cluster.silent[publisher("p0")] = Silence.STARTING
    relay.run(10)
    assert relay.cluster.created[publisher("p0")] == 1


def test_an_actor_that_always_fails_is_tried_ever_less_often(relay):
    key = stream("btcusdt@trade")
    relay.cluster.failing.add(key)
    relay.cluster.silent[key] = Silence.DEAD
    relay.run(60)
    assert 4 <= relay.cluster.created[key] <= 8
    assert any("btcusdt@trade failed to start" in problem for problem in relay.loop.report.status.problems)


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
        relay.now += relay.loop.close_down(5.0, relay.now)
    ended = relay.loop.taken_down()
    assert relay.loop.ended.is_set()
    assert relay.cluster.actors() == frozenset()
    assert relay.cluster.left_behind == []
    assert ended.left == 4
    assert ended.silent == ("usdm:ethusdt@trade",)
    assert len(ended.streams) == len(NAMES) - 1


def test_the_status_tells_who_is_silent_and_since_when_nothing_starts(relay):
    relay.cluster.stuck.add(publisher("p1"))
    relay.set_count(2)
    relay.run(20)
    status = relay.loop.report.status
    assert status.unreachable == ("p1",)
    assert (status.scale.mode, status.scale.wanted, status.scale.actual) == ("fixed", 2, 1)
    assert "publisher p1 has not started" in status.problems[0]


def test_streams_stand_in_the_order_of_the_configuration(relay):
    assert [stats.stream for stats in relay.loop.report.status.streams] == NAMES


def test_a_backlog_brings_publishers_by_itself(relay):
    for key in list(relay.cluster.streams):
        relay.cluster.change(key, queued=300_000, backlog_age_s=9.0)
    relay.run(3)
    assert relay.loop.report.status.scale.mode == "auto"
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
        seen |= set(relay.loop.report.status.problems)
    assert attempts == [len(NAMES)] * 3
    assert seen == {"NATS is away"}
    assert relay.served_by == {"p0": 6}, "streams start without NATS"
    relay.loop.close()
    host.close()


def test_a_jetstream_stream_that_was_deleted_is_made_again_and_told():
    host, made = PlainHost(), [["SLUICE_usdm_btcusdt_trade"], [], ["SLUICE_usdm_btcusdt_trade"], []]
    looks = []

    def ensure(nats, streams):
        looks.append(len(streams))
        return made[len(looks) - 1] if len(looks) <= len(made) else []

    relay = Relay(host, ensure=ensure)
    relay.run(2)
    assert relay.loop.report.status.problems == (), "the first time they are made is no trouble"
    while len(looks) < 4:
        relay.run(1)
    relay.run(2)
    (problem,) = relay.loop.report.status.problems
    assert problem.startswith("SLUICE_usdm_btcusdt_trade was deleted or changed in NATS")
    relay.loop.close()
    host.close()


def test_what_is_under_way_shows_until_it_is_done(relay):
    relay.run()
    assert relay.loop.report.status.pending == ()
    relay.plan = Plan(Running(2, config(*NAMES[:-1], "dogeusdt@trade")), relay.plan.scaling)
    relay.now += relay.loop.bring_towards(relay.plan, relay.now)
    assert set(relay.loop.report.status.pending) == {f"stream usdm:{NAMES[-1]}", "stream usdm:dogeusdt@trade"}
    relay.run()
    assert relay.loop.report.status.pending == ()
    assert [one.stream for one in relay.loop.report.status.ended] == [NAMES[-1]]


def critical(*names: str):
    shards = "".join(f"- {{stream: {name}, critical: {str(name in names).lower()}}}\n" for name in NAMES)
    return parse_config(f"shards:\n{shards}", {"HOME": "/home/somebody"})


def twin(name: str) -> ActorId:
    return ActorId(Role.TWIN, f"usdm:{name}")


@pytest.fixture
def paired(relay) -> Relay:
    """With one critical stream, whose legs have two nodes to choose from."""
    relay.cluster.node_names = frozenset({"a", "b"})
    relay.set_config(critical(NAMES[0]))
    relay.run(20)
    return relay


def test_a_critical_stream_gets_a_twin_on_another_node(paired):
    assert paired.cluster.twins.keys() == {f"usdm:{NAMES[0]}"}
    assert {paired.cluster.rooms[leg(NAMES[0])].node for leg in (stream, twin)} == {"a", "b"}
    assert paired.cluster.rooms[stream(NAMES[1])].node is None
    before = paired.cluster.created.copy(), paired.cluster.assigned.copy()
    paired.run(120)
    assert (paired.cluster.created, paired.cluster.assigned) == before


def test_both_legs_hear_of_their_publishers(paired):
    key = f"usdm:{NAMES[0]}"
    assert paired.cluster.twins[key].assignment_version == paired.cluster.streams[key].assignment_version > 0


def test_the_status_shows_the_hot_leg_and_the_warm_one_beside_it(paired):
    (shown,) = [one for one in paired.loop.report.status.streams if one.critical]
    assert (shown.node, shown.warm.node) in {("a", "b"), ("b", "a")}
    assert len(paired.loop.report.status.streams) == len(NAMES)
    assert paired.loop.report.status.problems == ()


def test_a_mute_hot_leg_is_made_anew_while_the_other_one_serves(paired):
    key = f"usdm:{NAMES[0]}"
    paired.cluster.silent[stream(NAMES[0])] = Silence.UNRESPONSIVE
    paired.cluster.twins[key] = replace(
        paired.cluster.twins[key], leg=LegState.HOT, epoch=9, takeovers=1, warm=None
    )
    paired.run(2)
    assert paired.loop.report.status.unreachable == (f"an instance of {key}",)
    assert paired.loop.report.health(paired.now).unhealthy == ()
    created = paired.cluster.created[stream(NAMES[0])]
    paired.run(6)
    assert paired.cluster.created[stream(NAMES[0])] == created + 1
    assert paired.cluster.created[twin(NAMES[0])] == 1
    (shown,) = [one for one in paired.loop.report.status.streams if one.critical]
    assert (shown.epoch, shown.takeovers) == (9, 1)


def test_a_critical_stream_without_a_warm_leg_is_a_problem_after_a_while(paired):
    paired.cluster.silent[twin(NAMES[0])] = Silence.STARTING
    paired.cluster.stuck.add(twin(NAMES[0]))
    paired.run(30)
    assert any("no standby instance" in problem for problem in paired.loop.report.status.problems)


def test_legs_that_had_one_node_part_once_there_is_another(relay):
    relay.set_config(critical(NAMES[0]))
    relay.run(60)
    key = f"usdm:{NAMES[0]}"
    assert relay.cluster.streams[key].node == relay.cluster.twins[key].node == "n"
    relay.cluster.node_names = frozenset({"n", "m"})
    relay.run(60)
    assert (relay.cluster.streams[key].node, relay.cluster.twins[key].node) == ("n", "m")
    assert relay.cluster.created[stream(NAMES[0])] == 2, "only the warm leg has moved"


def test_a_stream_that_is_critical_no_more_has_one_actor(paired):
    paired.set_config(critical())
    paired.run(10)
    assert paired.cluster.twins == {}
    assert len(paired.cluster.streams) == len(NAMES)


def test_a_new_controller_leaves_both_legs_alone(paired):
    before = paired.cluster.created.copy()
    paired.restart()
    paired.run(60)
    assert paired.cluster.created == before


def test_closing_down_drains_the_warm_leg_first_and_keeps_the_hot_ones_figures(paired):
    key = f"usdm:{NAMES[0]}"
    paired.cluster.change(key, spilled=4)
    paired.cluster.drained_in_order.clear()
    for _ in range(30):
        paired.now += paired.loop.close_down(5.0, paired.now)
    ended = paired.loop.taken_down()
    assert paired.loop.ended.is_set()
    assert paired.cluster.actors() == frozenset()
    assert (ended.left, ended.silent, len(ended.streams)) == (4, (), len(NAMES))
    legs = [actor for actor in paired.cluster.drained_in_order if actor.key == key]
    assert legs == [twin(NAMES[0]), stream(NAMES[0])]
