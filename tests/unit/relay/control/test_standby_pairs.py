"""The instances of critical streams as the controller shows and places them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.control.standby_pairs import (
    COLOCATED_LIMIT_S,
    UNCOVERED_LIMIT_S,
    ColocatedPairs,
    UncoveredStreams,
    choose_node,
    merged,
    other_instance,
)
from relay.model.actors import ActorId, Role
from tests.support.fakes import stream_stats, warm_stats

KEY = "usdm:btcusdt@trade"
STREAM, TWIN = ActorId(Role.STREAM, KEY), ActorId(Role.TWIN, KEY)
HOT = stream_stats(KEY, critical=True, epoch=8)
WARM = warm_stats(KEY)


@pytest.mark.parametrize("active_actor", [STREAM, TWIN])
def test_a_stream_is_shown_as_its_active_instance_with_the_standby_beside_it(active_actor: ActorId) -> None:
    (shown,) = merged({active_actor: HOT, other_instance(active_actor): WARM}, silent=())
    assert shown == replace(HOT, warm=WARM.warm)


def test_an_instance_that_does_not_answer_does_not_stand_by() -> None:
    (shown,) = merged({STREAM: HOT, TWIN: WARM}, silent={TWIN})
    assert shown.warm is None


def test_while_nobody_is_active_the_last_one_is_shown() -> None:
    (shown,) = merged({STREAM: HOT, TWIN: WARM}, silent={STREAM})
    assert (shown.epoch, shown.warm) == (8, WARM.warm)
    later = replace(HOT, epoch=9)
    assert merged({STREAM: HOT, TWIN: later}, silent={STREAM}) == [later]


def test_other_streams_are_shown_as_they_are() -> None:
    other = stream_stats("usdm:ethusdt@trade")
    found = merged({STREAM: HOT, TWIN: WARM, ActorId(Role.STREAM, "usdm:ethusdt@trade"): other}, silent=())
    assert other in found and len(found) == 2


def test_a_publisher_has_no_other_instance() -> None:
    assert other_instance(ActorId(Role.PUBLISHER, "p0")) is None


@pytest.mark.parametrize("standby", [None, replace(WARM.warm, ready=False)])
def test_a_critical_stream_without_a_ready_standby_instance_is_a_problem_after_a_while(
    standby: object,
) -> None:
    watch, bare = UncoveredStreams(), replace(HOT, warm=standby)
    watch.update([bare], 100.0)
    watch.update([bare, stream_stats("usdm:ethusdt@trade")], 100.0 + UNCOVERED_LIMIT_S)
    assert watch.problems(100.0 + UNCOVERED_LIMIT_S - 1) == []
    assert watch.problems(100.0 + UNCOVERED_LIMIT_S) == [
        f"{KEY} has had no standby instance that could take over for {UNCOVERED_LIMIT_S:.0f} s"
    ]
    watch.update([replace(HOT, warm=WARM.warm)], 130.0)
    assert watch.problems(1000.0) == []


def test_an_instance_goes_where_the_other_one_is_not_and_where_the_fewest_are() -> None:
    assert choose_node({"a", "b", "c"}, "a", ["b", "b", "c"]) == "c"
    assert choose_node({"a", "b"}, "a", ["b", "b", "b"]) == "b"
    assert choose_node({"a"}, "a", []) == "a"
    assert choose_node({"b", "a"}, None, []) == "a"
    assert choose_node((), None, []) is None


BOTH_ON_A = {Role.STREAM: "a", Role.TWIN: "a"}


def test_instances_that_share_a_node_part_once_there_is_another_one_for_a_while() -> None:
    together = ColocatedPairs()
    assert not together.update(KEY, BOTH_ON_A, frozenset({"a"}), 0.0)
    both = frozenset({"a", "b"})
    assert not together.update(KEY, BOTH_ON_A, both, 100.0)
    assert not together.update(KEY, BOTH_ON_A, both, 100.0 + COLOCATED_LIMIT_S - 1)
    assert together.update(KEY, BOTH_ON_A, both, 100.0 + COLOCATED_LIMIT_S)


def test_a_node_without_room_is_tried_once_and_a_new_one_again() -> None:
    together = ColocatedPairs()
    for nodes in (frozenset({"a", "b"}), frozenset({"a", "b", "c"})):
        tried = [together.update(KEY, BOTH_ON_A, nodes, at * 10.0) for at in range(20)]
        assert tried.count(True) == 1


@pytest.mark.parametrize("where", [{Role.STREAM: "a", Role.TWIN: "b"}, {Role.STREAM: "a"}, {}])
def test_instances_that_are_apart_or_not_there_stay(where: dict[Role, str]) -> None:
    together = ColocatedPairs()
    nodes = frozenset({"a", "b"})
    assert not any(together.update(KEY, where, nodes, at * 100.0) for at in range(5))
