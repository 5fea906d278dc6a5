"""Which publisher serves which stream."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.control.assign import STAY_S, Placement, assign, keep_failed_over, publish
from relay.control.endpoint_ring import MAX_ENDPOINTS
from relay.model.assignment import Assignment, PublisherEndpoint, decode_assignment, encode_assignment

CAPACITY = 10_000.0
CALM = {f"calm{number}": 100.0 for number in range(9)}
FLOOD = {**CALM, "flood": 9_500.0}


def settle(demand, publishers, current=None, *, now=1_000.0):
    """Assign again and again, each time a while later, until nothing moves."""
    placed = assign(demand, publishers, CAPACITY, current or {}, now)
    for _ in range(5):
        now += STAY_S
        placed = assign(demand, publishers, CAPACITY, placed, now)
    return placed


def where(placed):
    return {stream: placement.publisher for stream, placement in placed.items()}


def counts(placed):
    return Counter(where(placed).values())


def moved(before, after):
    return {stream for stream, publisher in where(before).items() if where(after)[stream] != publisher}


def test_without_publishers_nothing_is_assigned():
    assert assign(CALM, [], CAPACITY, {}, 0.0) == {}


def test_streams_spread_evenly_at_first():
    assert sorted(counts(assign(CALM, ["p0", "p1", "p2"], CAPACITY, {}, 0.0)).values()) == [3, 3, 3]


def test_streams_spread_by_demand_and_not_by_number():
    demand = {"a": 1_500.0, "b": 1_500.0, "c": 1_000.0, "heavy": 4_000.0}
    placed = assign(demand, ["p0", "p1"], CAPACITY, {}, 0.0)
    assert counts(placed)[where(placed)["heavy"]] == 1
    assert {placement.since for placement in placed.values()} == {-inf}, "well placed from the start"


def test_idle_streams_spread_evenly_too():
    placed = assign(dict.fromkeys(CALM, 0.0), ["p0", "p1", "p2"], CAPACITY, {}, 0.0)
    assert sorted(counts(placed).values()) == [3, 3, 3]


def test_new_publishers_take_over_their_share_at_once():
    one = assign(CALM, ["p0"], CAPACITY, {}, 0.0)
    three = assign(CALM, ["p0", "p1", "p2"], CAPACITY, one, 1.0)
    assert sorted(counts(three).values()) == [3, 3, 3]
    assert len(moved(one, three)) == 6


def test_only_the_streams_of_a_leaving_publisher_move():
    before = settle(CALM, ["p0", "p1", "p2"])
    after = assign(CALM, ["p0", "p1"], CAPACITY, before, 2_000.0)
    assert moved(before, after) == {
        stream for stream, publisher in where(before).items() if publisher == "p2"
    }


def test_a_moved_stream_stays_for_a_while():
    two = assign(CALM, ["p0", "p1"], CAPACITY, assign(CALM, ["p0"], CAPACITY, {}, 0.0), 1.0)
    came = {stream for stream, placement in two.items() if placement.publisher == "p1"}
    soon = assign(CALM, ["p0", "p1", "p2"], CAPACITY, two, 2.0)
    assert not came & moved(two, soon)


def test_a_moved_stream_moves_again_when_its_publisher_goes():
    two = assign(CALM, ["p0", "p1"], CAPACITY, assign(CALM, ["p0"], CAPACITY, {}, 0.0), 1.0)
    assert set(where(assign(CALM, ["p0"], CAPACITY, two, 2.0)).values()) == {"p0"}


def test_scaling_down_and_up_again_spreads_the_streams_at_once():
    four = ["p0", "p1", "p2", "p3"]
    one = assign(CALM, ["p0"], CAPACITY, assign(CALM, four, CAPACITY, {}, 0.0), 1.0)
    assert max(counts(assign(CALM, four, CAPACITY, one, 2.0)).values()) == 3


def test_what_had_to_stay_for_a_while_is_spread_later():
    four = ["p0", "p1", "p2", "p3"]
    fled = {stream: Placement("p0", 100.0) for stream in CALM}
    assert assign(CALM, four, CAPACITY, fled, 100.0 + STAY_S / 2) == fled
    assert max(counts(assign(CALM, four, CAPACITY, fled, 100.0 + STAY_S)).values()) == 3


def test_a_flood_gets_a_publisher_to_itself_and_stays_where_it_is():
    before = settle(dict.fromkeys(FLOOD, 100.0), ["p0", "p1"])
    after = settle(FLOOD, ["p0", "p1"], before, now=2_000.0)
    assert where(after)["flood"] == where(before)["flood"]
    assert counts(after)[where(after)["flood"]] == 1


def test_two_floods_get_a_publisher_each_and_the_calm_share_the_third():
    demand = {**FLOOD, "flood2": 8_000.0}
    together = {stream: Placement("p0" if "flood" in stream else "p1") for stream in demand}
    placed = assign(demand, ["p0", "p1", "p2"], CAPACITY, together, 1_000.0)
    assert sorted(counts(placed).values()) == [1, 1, 9]


def test_with_more_floods_than_publishers_one_is_left_to_the_calm():
    demand = {**CALM, "f1": 9_000.0, "f2": 8_000.0, "f3": 7_000.0}
    placed = where(settle(demand, ["p0", "p1"]))
    alone = [publisher for publisher, count in Counter(placed.values()).items() if count == 1]
    assert alone == [placed["f1"]]


def test_an_ebbing_flood_keeps_its_publisher_until_it_is_calm():
    others = dict.fromkeys(CALM, 500.0)
    flooded = settle({**others, "flood": 9_500.0}, ["p0", "p1"])
    ebbing = settle({**others, "flood": 3_500.0}, ["p0", "p1"], flooded, now=2_000.0)
    assert moved(flooded, ebbing) == set()
    calm = settle({**others, "flood": 500.0}, ["p0", "p1"], ebbing, now=3_000.0)
    assert max(counts(calm).values()) <= 6


def test_a_stream_never_moves_to_where_it_would_be_no_better_off():
    demand = {"heavy": 4_400.0, "light": 1_000.0, "other": 900.0}
    current = {"heavy": Placement("p0"), "light": Placement("p0"), "other": Placement("p1")}
    placed = assign(demand, ["p0", "p1"], CAPACITY, current, 100.0)
    assert placed["heavy"] == current["heavy"]


def test_a_busy_publisher_sheds_load_to_a_lighter_one():
    demand = {"a": 3_000.0, "b": 3_000.0, "c": 100.0, "d": 100.0}
    uneven = {stream: Placement("p0" if stream in "ab" else "p1") for stream in demand}
    placed = where(assign(demand, ["p0", "p1"], CAPACITY, uneven, 100.0))
    assert placed["a"] != placed["b"]


def test_wavering_rates_of_calm_streams_move_nothing():
    placed = settle(CALM, ["p0", "p1", "p2"])
    wavering = {stream: 20.0 * number for number, stream in enumerate(CALM)}
    assert moved(placed, assign(wavering, ["p0", "p1", "p2"], CAPACITY, placed, 9_000.0)) == set()


def adopted(*, version=4, uses="p1", publishers=("p1", "p2")):
    known = {"a": Assignment(version=4, publisher="p0", endpoints=())}
    return keep_failed_over({"a": Placement("p0")}, known, {"a": (uses, version)}, publishers, 50.0)["a"]


def test_a_stream_that_left_a_failed_publisher_stays_where_it_went():
    assert adopted() == Placement("p1", 50.0)


def test_a_stream_that_turned_away_from_a_working_publisher_is_not_followed():
    assert adopted(publishers=("p0", "p1")) == Placement("p0")


def test_a_stream_that_has_not_heard_the_latest_is_not_followed():
    assert adopted(version=3) == Placement("p0")


def test_a_stream_is_not_followed_to_a_publisher_that_leaves():
    assert adopted(uses="p9") == Placement("p0")


names = st.text("abcdefgh", min_size=1, max_size=3)
demands = st.dictionaries(names, st.floats(0, 30_000), max_size=30)
pools = st.sets(st.sampled_from([f"p{number}" for number in range(12)]), min_size=1)
placements = st.dictionaries(
    names, st.builds(Placement, st.sampled_from([f"p{number}" for number in range(12)]), st.floats(0, 100))
)


@given(demands, pools, placements)
def test_every_stream_gets_one_of_the_publishers(demand, publishers, current):
    placed = assign(demand, publishers, CAPACITY, current, 100.0)
    assert placed.keys() == demand.keys()
    assert set(where(placed).values()) <= publishers


@given(demands, pools, placements)
def test_the_answer_does_not_depend_on_the_order_of_the_question(demand, publishers, current):
    turned = dict(reversed(demand.items()))
    assert assign(demand, sorted(publishers), CAPACITY, current, 100.0) == assign(
        turned, sorted(publishers, reverse=True), CAPACITY, current, 100.0
    )


@given(demands, pools, placements)
def test_streams_that_moved_lately_stay_while_their_publisher_is_there(demand, publishers, current):
    placed = assign(demand, publishers, CAPACITY, current, 100.0)
    for stream, placement in current.items():
        if stream in demand and placement.publisher in publishers and placement.since > 100.0 - STAY_S:
            assert placed[stream] == placement


@given(demands, pools, placements)
def test_an_unchanged_picture_comes_to_rest(demand, publishers, current):
    settled = settle(demand, publishers, current)
    assert moved(settled, assign(demand, publishers, CAPACITY, settled, 5_000.0)) == set()


@given(demands, pools)
def test_an_assignment_from_nothing_is_settled_after_one_more_look(demand, publishers):
    first = assign(demand, publishers, CAPACITY, {}, 0.0)
    second = assign(demand, publishers, CAPACITY, first, 100.0)
    assert moved(second, assign(demand, publishers, CAPACITY, second, 200.0)) == set()


def endpoint(name, incarnation=1):
    return PublisherEndpoint(
        publisher=name, node="n", unix_path=f"/r/{name}-{incarnation}", tcp_address="h:1"
    )


def endpoints(*publishers):
    return {name: endpoint(name) for name in publishers}


def test_only_changed_assignments_are_published_with_a_higher_version():
    placed = {"a": Placement("p0"), "b": Placement("p1")}
    first = publish({}, placed, endpoints("p0", "p1"))
    moved_one = publish(first, {**placed, "b": Placement("p0")}, endpoints("p0", "p1"))
    assert {stream: made.version for stream, made in first.items()} == {"a": 1, "b": 1}
    assert {stream: made.version for stream, made in moved_one.items()} == {"b": 2}
    assert publish(first, placed, endpoints("p0", "p1")) == {}


def test_a_version_is_above_what_streams_report():
    assert publish({}, {"a": Placement("p0")}, endpoints("p0"), 7)["a"].version == 8


def test_a_restarted_publisher_is_published_with_its_new_endpoint():
    placed = {"a": Placement("p0")}
    first = publish({}, placed, endpoints("p0"))
    again = publish(first, placed, {"p0": endpoint("p0", incarnation=2)})
    assert again["a"].endpoints == (endpoint("p0", incarnation=2),)


def test_an_assignment_names_its_publisher_first_and_some_others():
    many = endpoints(*(f"p{number}" for number in range(100)))
    made = publish({}, {f"s{number}": Placement("p7") for number in range(200)}, many)
    assert all(assignment.endpoints[0].publisher == "p7" for assignment in made.values())
    assert {len(set(assignment.endpoints)) for assignment in made.values()} == {MAX_ENDPOINTS}
    seconds = Counter(assignment.endpoints[1].publisher for assignment in made.values())
    assert len(seconds) > 50


@pytest.mark.parametrize("publisher", ["p0", None])
def test_an_assignment_survives_being_written_down(publisher):
    written = Assignment(version=3, publisher=publisher, endpoints=(endpoint("p0"), endpoint("p1")))
    assert decode_assignment(encode_assignment(written)) == written


def test_one_publisher_more_changes_the_choice_of_few_streams():
    names = [f"p{number}" for number in range(200)]
    placed = {f"usdm:s{number}@trade": Placement(names[number % 199]) for number in range(2000)}
    before = publish({}, placed, {name: endpoint(name) for name in names[:199]})
    changed = publish(before, placed, {name: endpoint(name) for name in names})
    assert 0 < len(changed) < 0.15 * len(placed)
    assert publish(before | changed, placed, {name: endpoint(name) for name in names}) == {}
