"""Reconciling, alone and played against a model of the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.control.assign import Placement, assign, publish
from relay.control.reconcile import (
    RETIRE_GRACE_S,
    UNRESPONSIVE_LIMIT_S,
    Assign,
    Create,
    Desired,
    Drain,
    Instruction,
    Observed,
    ObservedPublisher,
    ObservedStream,
    Remove,
    Retire,
    reconcile,
    unsettled,
)
from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import Assignment, PublisherEndpoint


def stream(key: str) -> ActorId:
    return ActorId(Role.STREAM, key)


def twin(key: str) -> ActorId:
    return ActorId(Role.TWIN, key)


def publisher(name: str) -> ActorId:
    return ActorId(Role.PUBLISHER, name)


def assigned(name: str, version: int = 1) -> Assignment:
    return Assignment(version=version, publisher=name, endpoints=())


SERVED = ObservedStream(revision="r1", publisher="p0", assignment_version=1)
STANDBY = ObservedStream(revision="r1", assignment_version=1, is_standby=True)
SERVING = ObservedPublisher(revision="n1")


def steps(*, streams=None, publishers=None, count=1, observed_streams=None, now=100.0, **rest):
    """What one look at `a` served by `p0` comes to, with the named differences."""
    desired = Desired(
        streams={"a": "r1"} if streams is None else streams,
        publishers=count,
        publisher_revision="n1",
        assignments=rest.pop("assignments", {"a": assigned("p0")}),
    )
    observed = Observed(
        streams={"a": SERVED} if observed_streams is None else observed_streams,
        publishers={"p0": SERVING} if publishers is None else publishers,
        **rest,
    )
    return reconcile(desired, observed, now)


def test_what_is_as_it_should_be_needs_nothing():
    assert steps() == []


def test_missing_actors_are_created_side_by_side_and_publishers_first():
    made = steps(observed_streams={}, publishers={}, count=3, assignments={})
    assert made == [*(Create(publisher(f"p{number}")) for number in range(3)), Create(stream("a"))]


def test_what_failed_lately_is_not_created_yet():
    held = {stream("a"): 101.0, publisher("p0"): 99.0}
    assert steps(observed_streams={}, publishers={}, not_before=held) == [Create(publisher("p0"))]


def test_starting_actors_are_waited_for():
    starting = {"a": replace(SERVED, silence=Silence.STARTING, unresponsive_s=0.0)}
    assert (
        steps(observed_streams=starting, publishers={"p0": replace(SERVING, silence=Silence.STARTING)}) == []
    )


@pytest.mark.parametrize(
    ("unresponsive_s", "made"),
    [(UNRESPONSIVE_LIMIT_S - 0.1, []), (UNRESPONSIVE_LIMIT_S, [Remove(stream("a"))])],
)
def test_a_mute_stream_is_given_up_after_a_while(unresponsive_s, made):
    assert (
        steps(
            observed_streams={
                "a": replace(SERVED, silence=Silence.UNRESPONSIVE, unresponsive_s=unresponsive_s)
            }
        )
        == made
    )


def test_a_mute_publisher_is_given_up_after_a_while():
    mute = replace(SERVING, silence=Silence.UNRESPONSIVE, unresponsive_s=UNRESPONSIVE_LIMIT_S)
    assert steps(publishers={"p0": mute}) == [Remove(publisher("p0"))]


def test_a_stream_hears_of_its_assignment_until_it_reports_it():
    newer = {"a": assigned("p0", version=2)}
    assert steps(assignments=newer) == [Assign(stream("a"), newer["a"])]
    assert (
        steps(assignments=newer, observed_streams={"a": replace(SERVED, silence=Silence.UNRESPONSIVE)}) == []
    )
    assert steps(assignments=newer, observed_streams={"a": replace(SERVED, assignment_version=2)}) == []


@pytest.mark.parametrize("streams", [{}, {"a": "r2"}])
def test_an_unwanted_or_changed_stream_drains_before_it_goes(streams):
    drained = [
        steps(streams=streams, observed_streams={"a": replace(SERVED, drained=over)})
        for over in (None, False, True)
    ]
    assert drained == [[Drain(stream("a"))], [], [Remove(stream("a"))]]


@pytest.mark.parametrize(
    ("silence", "unresponsive_s"), [(Silence.STARTING, 0.0), (Silence.UNRESPONSIVE, UNRESPONSIVE_LIMIT_S)]
)
def test_who_cannot_drain_is_removed_at_once(silence, unresponsive_s):
    stream_there = {"a": replace(SERVED, silence=silence, unresponsive_s=unresponsive_s)}
    assert steps(streams={}, observed_streams=stream_there) == [Remove(stream("a"))]
    retired = replace(SERVING, retired_s=0.0, silence=silence, unresponsive_s=unresponsive_s)
    assert steps(publishers={"p1": SERVING, "p0": retired}) == [Remove(publisher("p0"))]


def test_a_stopped_stream_that_is_wanted_again_starts_anew():
    assert steps(observed_streams={"a": replace(SERVED, stopped=True)}) == [Remove(stream("a"))]
    assert steps(observed_streams={"a": replace(SERVED, stopped=True, drained=False)}) == []


def pair(**changes):
    """What a look at the critical stream `a` with two legs comes to, with the named differences."""
    desired = Desired(
        streams=changes.pop("streams", {"a": "r1"}),
        publishers=1,
        critical=changes.pop("critical", frozenset({"a"})),
        publisher_revision="n1",
        assignments={"a": assigned("p0")},
    )
    observed = Observed(
        streams=changes.pop("actors", {"a": SERVED}),
        publishers={"p0": SERVING},
        twins=changes.pop("twins", {"a": STANDBY}),
        **changes,
    )
    return reconcile(desired, observed, 100.0)


def test_a_critical_stream_has_a_twin_and_no_other_has_one():
    assert pair() == []
    assert pair(twins={}) == [Create(twin("a"))]
    assert pair(actors={}, twins={}) == [Create(stream("a")), Create(twin("a"))]
    assert pair(critical=frozenset()) == [Drain(twin("a"))]


def test_both_legs_hear_of_an_assignment_and_a_mute_one_is_given_up():
    assert pair(twins={"a": replace(STANDBY, assignment_version=0)}) == [Assign(twin("a"), assigned("p0"))]
    mute = replace(STANDBY, silence=Silence.UNRESPONSIVE, unresponsive_s=UNRESPONSIVE_LIMIT_S)
    assert pair(twins={"a": mute}) == [Remove(twin("a"))]


@pytest.mark.parametrize("streams", [{}, {"a": "r2"}])
@pytest.mark.parametrize("hot", [Role.STREAM, Role.TWIN])
def test_of_two_legs_that_leave_the_warm_one_goes_first(streams, hot):
    """Or it would take over from the other."""
    warm = twin("a") if hot is Role.STREAM else stream("a")
    legs = {hot: SERVED, warm.role: STANDBY}
    both = {"actors": {"a": legs[Role.STREAM]}, "twins": {"a": legs[Role.TWIN]}}
    assert pair(streams=streams, **both) == [Drain(warm)]
    legs[warm.role] = replace(STANDBY, drained=True, stopped=True)
    both = {"actors": {"a": legs[Role.STREAM]}, "twins": {"a": legs[Role.TWIN]}}
    assert pair(streams=streams, **both) == [Remove(warm)]
    alone = {role: {"a": SERVED} if role is hot else {} for role in legs}
    left = pair(streams=streams, actors=alone[Role.STREAM], twins=alone[Role.TWIN])
    assert Drain(ActorId(hot, "a")) in left


def test_a_hot_twin_that_is_not_wanted_any_more_leaves_to_the_warm_leg():
    assert pair(critical=frozenset(), actors={"a": STANDBY}, twins={"a": SERVED}) == [Drain(twin("a"))]


def test_a_publisher_that_a_twin_uses_is_not_drained_yet():
    pool = {"p0": SERVING, "p1": replace(SERVING, retired_s=1.0)}
    using = {"a": replace(SERVED, publisher="p1")}
    assert steps(publishers=pool, twins=using) == [Drain(twin("a"))]


def test_the_least_used_publishers_retire_first():
    pool = {
        "p0": replace(SERVING, demand_per_s=5.0),
        "p1": replace(SERVING, demand_per_s=9.0),
        "p2": replace(SERVING, demand_per_s=1.0),
        "p3": replace(SERVING, silence=Silence.STARTING, demand_per_s=3.0),
    }
    assert steps(publishers=pool, count=2) == [Retire("p3"), Retire("p2")]


def test_of_equal_publishers_the_newest_retires():
    assert steps(publishers=dict.fromkeys(["p0", "p2", "p10"], SERVING), count=2) == [Retire("p10")]


def test_a_retired_publisher_drains_when_nobody_uses_it_any_more():
    pool = {"p0": SERVING, "p1": replace(SERVING, retired_s=1.0)}
    assert steps(publishers=pool) == [Drain(publisher("p1"))]
    using = {"a": replace(SERVED, publisher="p1")}
    assert steps(publishers=pool, observed_streams=using) == []
    assert steps(publishers=pool, assignments={"a": assigned("p1")}) == []


def test_a_retired_publisher_is_drained_in_the_end_even_if_it_is_used():
    pool = {"p0": SERVING, "p1": replace(SERVING, retired_s=RETIRE_GRACE_S)}
    assert steps(publishers=pool, observed_streams={"a": replace(SERVED, publisher="p1")}) == [
        Drain(publisher("p1"))
    ]


def test_a_drained_publisher_is_removed_and_its_name_free_again():
    pool = {"p1": replace(SERVING, retired_s=1.0, drained=True), "p0": SERVING}
    assert steps(publishers=pool, count=2) == [Create(publisher("p2")), Remove(publisher("p1"))]


def test_publishers_of_other_settings_stay_until_the_new_ones_serve():
    old = replace(SERVING, revision="n0")
    assert steps(publishers={"p0": old}) == [Create(publisher("p1"))]
    starting = replace(SERVING, silence=Silence.STARTING)
    assert steps(publishers={"p0": old, "p1": starting}) == []
    assert steps(publishers={"p0": old, "p1": SERVING}) == [Retire("p0")]


def test_what_a_change_still_waits_for_is_named():
    desired = Desired(streams={"a": "r2", "b": "r1"}, publishers=2, publisher_revision="n1")
    pool = {"p0": SERVING, "p1": replace(SERVING, revision="n0")}
    observed = Observed(streams={"a": SERVED, "c": SERVED}, publishers=pool)
    assert unsettled(desired, observed) == (
        publisher("p2"), stream("b"), stream("a"), stream("c"), publisher("p1"),
    )  # fmt: skip


def test_a_publisher_too_many_is_waited_for_before_it_is_told():
    desired = Desired(streams={"a": "r1"}, publishers=1, publisher_revision="n1")
    observed = Observed(streams={"a": SERVED}, publishers={"p0": SERVING, "p1": SERVING})
    assert unsettled(desired, observed) == (publisher("p1"),)


@dataclass
class Model:
    """A cluster in which an instruction has its effect one look later, and the controller's part."""

    streams: dict[str, ObservedStream]
    publishers: dict[str, ObservedPublisher]
    twins: dict[str, ObservedStream] = field(default_factory=dict)
    critical: frozenset[str] = frozenset()
    placed: dict[str, Placement] = field(default_factory=dict)
    published: dict[str, Assignment] = field(default_factory=dict)
    now: float = 1_000.0

    def look(self, desired_streams: dict[str, str], count: int) -> list[Instruction]:
        desired = self.desired(desired_streams, count)
        return reconcile(desired, self.observed(), self.now)

    def observed(self) -> Observed:
        return Observed(streams=self.streams, publishers=self.publishers, twins=self.twins)

    def desired(self, desired_streams: dict[str, str], count: int) -> Desired:
        self._pass_time()
        serving = sorted(
            name
            for name, found in self.publishers.items()
            if found.silence is None and found.retired_s is None
        )
        self.placed = assign(dict.fromkeys(desired_streams, 0.0), serving, 1_000.0, self.placed, self.now)
        endpoints = {name: endpoint(name) for name in serving}
        reported = max((leg.assignment_version for _, _, leg in self.observed().instances()), default=0)
        self.published.update(publish(self.published, self.placed, endpoints, reported))
        self.published = {key: made for key, made in self.published.items() if key in desired_streams}
        return Desired(
            streams=desired_streams,
            publishers=count,
            critical=self.critical & desired_streams.keys(),
            publisher_revision="n1",
            assignments=self.published,
        )

    def _pass_time(self) -> None:
        self.now += 1.0
        self.streams = {key: later(found) for key, found in self.streams.items()}
        self.twins = {key: later(found) for key, found in self.twins.items()}
        self.publishers = {
            name: later(found if found.retired_s is None else replace(found, retired_s=found.retired_s + 1.0))
            for name, found in self.publishers.items()
        }

    def apply(self, instruction: Instruction, revisions: dict[str, str]) -> None:
        match instruction:
            case Create(ActorId(Role.STREAM | Role.TWIN, key)):
                made = ObservedStream(revision=revisions[key], silence=Silence.STARTING)
                self.legs(instruction.actor)[key] = made
            case Create(ActorId(Role.PUBLISHER, name)):
                self.publishers[name] = ObservedPublisher(revision="n1", silence=Silence.STARTING)
            case Assign(actor, made):
                legs = self.legs(actor)
                legs[actor.key] = replace(
                    legs[actor.key], publisher=made.publisher, assignment_version=made.version
                )
            case Retire(name):
                self.publishers[name] = replace(self.publishers[name], retired_s=0.0)
            case Drain(ActorId(Role.STREAM | Role.TWIN, key)):
                legs = self.legs(instruction.actor)
                legs[key] = replace(legs[key], drained=False, stopped=True)
            case Drain(ActorId(Role.PUBLISHER, name)):
                self.publishers[name] = replace(self.publishers[name], drained=False)
            case Remove(ActorId(Role.STREAM | Role.TWIN, key)):
                del self.legs(instruction.actor)[key]
            case Remove(ActorId(Role.PUBLISHER, name)):
                del self.publishers[name]

    def legs(self, actor: ActorId) -> dict[str, ObservedStream]:
        return self.twins if actor.role is Role.TWIN else self.streams


def later(found):
    silence = None if found.silence is Silence.STARTING else found.silence
    unresponsive_s = found.unresponsive_s + 1.0 if silence is Silence.UNRESPONSIVE else 0.0
    return replace(
        found, silence=silence, unresponsive_s=unresponsive_s, drained=None if found.drained is None else True
    )


def endpoint(name: str) -> PublisherEndpoint:
    return PublisherEndpoint(publisher=name, node="n", unix_path=f"/{name}", tcp_address="")


silences = st.sampled_from([None, Silence.STARTING, Silence.UNRESPONSIVE])
revisions = st.sampled_from(["r1", "r2"])
drains = st.sampled_from([None, False, True])
observed_streams = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        ObservedStream,
        revision=revisions,
        silence=silences,
        drained=drains,
        stopped=st.booleans(),
        publisher=st.sampled_from(["p0", "p1", None]),
        assignment_version=st.integers(0, 3),
        is_standby=st.booleans(),
    ),
)
observed_publishers = st.dictionaries(
    st.sampled_from([f"p{number}" for number in range(6)]),
    st.builds(
        ObservedPublisher,
        revision=st.sampled_from(["n0", "n1"]),
        silence=silences,
        drained=drains,
        retired_s=st.sampled_from([None, 0.0]),
        demand_per_s=st.floats(0, 100),
    ).map(lambda found: found if found.drained is None else replace(found, retired_s=found.retired_s or 0.0)),
)
desired_streams = st.dictionaries(st.sampled_from("abcdef"), revisions, min_size=1)
models = st.builds(
    lambda streams, publishers, twins, critical: Model(
        dict(streams), dict(publishers), dict(twins), frozenset(critical)
    ),
    observed_streams,
    observed_publishers,
    observed_streams,
    st.sets(st.sampled_from("abcdef")),
)


@given(models, desired_streams, st.integers(1, 5))
def test_from_anywhere_the_cluster_becomes_the_desired_one_and_then_nothing_happens(model, wanted, count):
    for _ in range(40):
        for instruction in model.look(wanted, count):
            model.apply(instruction, wanted)
    assert model.look(wanted, count) == []
    assert unsettled(model.desired(wanted, count), model.observed()) == ()
    assert {key: found.revision for key, found in model.streams.items()} == wanted
    assert model.twins.keys() == model.critical & wanted.keys()
    assert not any(leg.stopped or leg.silence for _, _, leg in model.observed().instances())
    assert len(model.publishers) == count
    assert {found.publisher for found in model.streams.values()} <= model.publishers.keys()


@given(models, desired_streams, st.integers(1, 5))
def test_whoever_is_created_drained_or_removed_is_unsettled(model, wanted, count):
    desired = model.desired(wanted, count)
    observed = model.observed()
    touched = {
        made.actor
        for made in reconcile(desired, observed, model.now)
        if isinstance(made, Create | Drain | Remove)
    }
    assert touched <= set(unsettled(desired, observed))


@given(models, desired_streams, st.integers(1, 5))
def test_no_actor_gets_two_instructions_at_once(model, wanted, count):
    actors = [made.actor for made in model.look(wanted, count) if isinstance(made, Create | Drain | Remove)]
    assert len(actors) == len(set(actors))
