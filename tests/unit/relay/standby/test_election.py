"""When an instance of a critical stream takes over, and when it does not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.standby.election import (
    JOURNAL_NODE_DELAY_S,
    MAX_MISSED_STATUSES,
    MIN_STATUSES,
    RECONNECT_GRACE_S,
    STARTUP_DELAY_S,
    Election,
)
from relay.standby.peer_status import STATUS_INTERVAL_S, PeerStatus

HOT = PeerStatus(1, active=True, epoch=100)
OWN = PeerStatus(2, active=False, since_ns=5)


@dataclass
class Watcher:
    """The instance 2 with publishers that speak every `STATUS_INTERVAL_S`; `instances` say their statuses
    over those of them that they are connected to."""

    instances: dict[str, list[PeerStatus]] = field(default_factory=dict)
    publishers: set[str] = field(default_factory=lambda: {"p0", "p1"})
    election: Election = field(default_factory=lambda: Election(2))
    now: float = 100.0
    covers: bool = True
    own: PeerStatus = OWN

    def __post_init__(self) -> None:
        for publisher in self.publishers:
            self.election.link_opened(publisher)

    def run(self, seconds: float) -> float | None:
        """After how long it takes over; None if it does not."""
        began = self.now
        while self.now < began + seconds:
            self.now += STATUS_INTERVAL_S
            for publisher in sorted(self.publishers):
                for status in self.instances.get(publisher, []):
                    self.election.status_received(publisher, status)
                self.election.publisher_alive(publisher)
            if self.election.must_take_over(self.own, self.now, covers=self.covers):
                return self.now - began
        return None

    def part(self, *publishers: str) -> None:
        """The active instance's connections to these end."""
        for publisher in publishers:
            self.instances.pop(publisher, None)
            self.election.peer_left(publisher, HOT.instance_id, self.now)


def beside_an_active_instance(**more: object) -> Watcher:
    watcher = Watcher(instances={"p0": [HOT], "p1": [HOT]}, **more)
    assert watcher.run(30.0) is None, "there is an active instance"
    return watcher


def test_the_death_of_the_active_instance_is_noticed_at_once() -> None:
    watcher = beside_an_active_instance()
    watcher.part("p0", "p1")
    assert watcher.run(10.0) <= RECONNECT_GRACE_S + 2 * STATUS_INTERVAL_S


def test_an_active_instance_that_stands_still_is_noticed_within_its_statuses() -> None:
    watcher = beside_an_active_instance()
    watcher.instances.clear()
    assert watcher.run(10.0) <= (MAX_MISSED_STATUSES + 1) * STATUS_INTERVAL_S


def test_an_active_instance_that_one_publisher_still_sees_is_not_dead() -> None:
    watcher = beside_an_active_instance()
    watcher.part("p0")
    assert watcher.run(30.0) is None


def test_an_active_instance_that_is_back_soon_has_not_gone() -> None:
    watcher = beside_an_active_instance()
    watcher.part("p0", "p1")
    watcher.instances = {"p1": [HOT]}
    assert watcher.run(30.0) is None


def test_a_publisher_that_dies_accuses_nobody() -> None:
    watcher = beside_an_active_instance()
    watcher.publishers = {"p1"}
    watcher.election.link_closed("p0", watcher.now)
    assert watcher.run(30.0) is None


def test_without_a_publisher_nobody_takes_over_and_with_a_new_one_not_at_once() -> None:
    watcher = beside_an_active_instance()
    watcher.publishers, watcher.instances = set(), {}
    for publisher in ("p0", "p1"):
        watcher.election.link_closed(publisher, watcher.now)
    assert watcher.run(30.0) is None
    watcher.publishers = {"p2"}
    watcher.election.link_opened("p2")
    assert watcher.run(10.0) >= MIN_STATUSES * STATUS_INTERVAL_S, (
        "the active instance has time to connect, too"
    )


def test_a_publisher_that_stands_still_accuses_nobody() -> None:
    """Neither it nor the active instance's statuses are heard, for however long; afterwards all come at
    once."""
    watcher = beside_an_active_instance()
    watcher.now += 60.0
    assert not watcher.election.must_take_over(OWN, watcher.now, covers=True)
    assert watcher.run(30.0) is None


def test_an_instance_that_was_itself_stopped_reads_first_what_came_meanwhile() -> None:
    watcher = beside_an_active_instance()
    watcher.now += 60.0
    for _ in range(100):
        for publisher in ("p0", "p1"):
            watcher.election.publisher_alive(publisher)
            watcher.election.status_received(publisher, HOT)
    assert not watcher.election.must_take_over(OWN, watcher.now, covers=True)


def test_an_instance_that_does_not_reach_back_leaves_the_journals_node_the_first_turn() -> None:
    watcher = beside_an_active_instance(covers=False)
    watcher.part("p0", "p1")
    assert JOURNAL_NODE_DELAY_S <= watcher.run(30.0) <= JOURNAL_NODE_DELAY_S + 1.0


def test_of_two_instances_that_start_together_the_one_that_has_more_goes_first() -> None:
    later = PeerStatus(1, active=False, since_ns=9)
    assert Watcher(instances={"p0": [later]}).run(10.0) <= (MIN_STATUSES + 1) * STATUS_INTERVAL_S
    earlier = PeerStatus(1, active=False, since_ns=3)
    waited_s = Watcher(instances={"p0": [earlier]}).run(10.0)
    assert STARTUP_DELAY_S <= waited_s <= STARTUP_DELAY_S + 2.0, "in the end somebody has to be active"


def test_the_newest_journal_counts_for_more_than_what_was_read() -> None:
    with_journal = PeerStatus(1, active=False, journal_epoch=50, since_ns=9)
    assert Watcher(instances={"p0": [with_journal]}).run(2.0) is None
    own = PeerStatus(2, active=False, journal_epoch=60, since_ns=9)
    assert Watcher(instances={"p0": [with_journal]}, own=own).run(2.0) is not None


def test_an_instance_alone_waits_for_another_one_that_may_have_more() -> None:
    waited_s = Watcher().run(10.0)
    assert STARTUP_DELAY_S <= waited_s <= STARTUP_DELAY_S + 2.0


def test_a_new_instance_leaves_a_dead_active_ones_place_to_the_one_that_stood_by() -> None:
    ready = PeerStatus(3, active=False, ready=True, since_ns=9)
    assert Watcher(instances={"p0": [ready]}).run(2.0) is None


def test_the_active_instance_learns_of_a_later_one_alone() -> None:
    watcher = Watcher(instances={"p0": [HOT]})
    watcher.run(1.0)
    assert watcher.election.superseded_by(101) is None
    assert watcher.election.superseded_by(99) == 100


def test_the_peer_is_who_is_there_now() -> None:
    watcher = beside_an_active_instance()
    assert watcher.election.peer(watcher.now) == HOT
    watcher.part("p0", "p1")
    assert watcher.election.peer(watcher.now + 1.0) is None
    assert watcher.election.active == HOT, "what it said last still counts"


@pytest.mark.parametrize("publisher", ["p0", "unknown"])
def test_statuses_of_its_own_and_of_nobody_are_ignored(publisher: str) -> None:
    election = Election(2)
    election.link_opened("p0")
    election.status_received(publisher, PeerStatus(2 if publisher == "p0" else 1, active=True, epoch=7))
    election.peer_left(publisher, 1, 0.0)
    assert election.active is None


class Publishers(RuleBasedStateMachine):
    """An active instance that lives, and publishers that die, stand still, come back and lose connections;
    whatever they do, nobody takes over as long as the active instance comes back before it is missed."""

    def __init__(self) -> None:
        super().__init__()
        self.election = Election(2)
        self.now = 0.0
        self.connected: dict[str, bool] = {}
        self.count = 0

    @rule()
    def a_publisher_comes(self) -> None:
        """The active instance connects to it as well, and speaks at once."""
        self.count += 1
        name = f"p{self.count}"
        self.election.link_opened(name)
        self.connected[name] = True
        self.election.status_received(name, HOT)

    @rule(data=st.data())
    def a_publisher_dies(self, data: st.DataObject) -> None:
        if self.connected:
            name = data.draw(st.sampled_from(sorted(self.connected)))
            del self.connected[name]
            self.election.link_closed(name, self.now)

    @rule(data=st.data())
    def the_active_instance_loses_a_connection_and_is_back(self, data: st.DataObject) -> None:
        if self.connected:
            name = data.draw(st.sampled_from(sorted(self.connected)))
            self.election.peer_left(name, HOT.instance_id, self.now)
            self.now += RECONNECT_GRACE_S / 2
            self.election.status_received(name, HOT)

    @rule(still=st.sets(st.integers(1, 9)), seconds=st.floats(0.25, 20.0))
    def time_passes(self, still: set[int], seconds: float) -> None:
        """Publishers that stand still pass nothing on; the others pass on a status for each of their own."""
        self.now += seconds
        for name in self.connected:
            if int(name[1:]) not in still:
                for _ in range(int(seconds / STATUS_INTERVAL_S)):
                    self.election.status_received(name, HOT)
                    self.election.publisher_alive(name)

    @invariant()
    def nobody_takes_over(self) -> None:
        assert not self.election.must_take_over(OWN, self.now, covers=True)


TestPublishers = Publishers.TestCase
TestPublishers.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
