"""When a leg of a critical stream takes over, and when it does not."""

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
    """The leg 2 with publishers that speak every `WORD_EVERY_S`; `legs` say their words over those of them
    that they are connected to."""

    legs: dict[str, list[PeerStatus]] = field(default_factory=dict)
    publishers: set[str] = field(default_factory=lambda: {"p0", "p1"})
    vigil: Election = field(default_factory=lambda: Election(2))
    now: float = 100.0
    covers: bool = True
    own: PeerStatus = OWN

    def __post_init__(self) -> None:
        for publisher in self.publishers:
            self.vigil.link_opened(publisher)

    def run(self, seconds: float) -> float | None:
        """After how long it takes over; None if it does not."""
        began = self.now
        while self.now < began + seconds:
            self.now += STATUS_INTERVAL_S
            for publisher in sorted(self.publishers):
                for word in self.legs.get(publisher, []):
                    self.vigil.status_received(publisher, word)
                self.vigil.publisher_alive(publisher)
            if self.vigil.must_take_over(self.own, self.now, covers=self.covers):
                return self.now - began
        return None

    def part(self, *publishers: str) -> None:
        """The hot leg's connections to these end."""
        for publisher in publishers:
            self.legs.pop(publisher, None)
            self.vigil.peer_left(publisher, HOT.instance_id, self.now)


def beside_a_hot_leg(**more: object) -> Watcher:
    watcher = Watcher(legs={"p0": [HOT], "p1": [HOT]}, **more)
    assert watcher.run(30.0) is None, "there is a hot leg"
    return watcher


def test_the_death_of_the_hot_leg_is_noticed_at_once() -> None:
    watcher = beside_a_hot_leg()
    watcher.part("p0", "p1")
    assert watcher.run(10.0) <= RECONNECT_GRACE_S + 2 * STATUS_INTERVAL_S


def test_a_hot_leg_that_stands_still_is_noticed_within_its_words() -> None:
    watcher = beside_a_hot_leg()
    watcher.legs.clear()
    assert watcher.run(10.0) <= (MAX_MISSED_STATUSES + 1) * STATUS_INTERVAL_S


def test_a_hot_leg_that_one_publisher_still_sees_is_not_dead() -> None:
    watcher = beside_a_hot_leg()
    watcher.part("p0")
    assert watcher.run(30.0) is None


def test_a_hot_leg_that_is_back_soon_has_not_gone() -> None:
    watcher = beside_a_hot_leg()
    watcher.part("p0", "p1")
    watcher.legs = {"p1": [HOT]}
    assert watcher.run(30.0) is None


def test_a_publisher_that_dies_accuses_nobody() -> None:
    watcher = beside_a_hot_leg()
    watcher.publishers = {"p1"}
    watcher.vigil.link_closed("p0", watcher.now)
    assert watcher.run(30.0) is None


def test_without_a_publisher_nobody_takes_over_and_with_a_new_one_not_at_once() -> None:
    watcher = beside_a_hot_leg()
    watcher.publishers, watcher.legs = set(), {}
    for publisher in ("p0", "p1"):
        watcher.vigil.link_closed(publisher, watcher.now)
    assert watcher.run(30.0) is None
    watcher.publishers = {"p2"}
    watcher.vigil.link_opened("p2")
    assert watcher.run(10.0) >= MIN_STATUSES * STATUS_INTERVAL_S, "the hot leg has time to connect, too"


def test_a_publisher_that_stands_still_accuses_nobody() -> None:
    """Neither it nor the hot leg's words are heard, for however long; afterwards all come at once."""
    watcher = beside_a_hot_leg()
    watcher.now += 60.0
    assert not watcher.vigil.must_take_over(OWN, watcher.now, covers=True)
    assert watcher.run(30.0) is None


def test_a_leg_that_was_itself_stopped_reads_first_what_came_meanwhile() -> None:
    watcher = beside_a_hot_leg()
    watcher.now += 60.0
    for _ in range(100):
        for publisher in ("p0", "p1"):
            watcher.vigil.publisher_alive(publisher)
            watcher.vigil.status_received(publisher, HOT)
    assert not watcher.vigil.must_take_over(OWN, watcher.now, covers=True)


def test_a_leg_that_does_not_reach_back_leaves_the_journals_node_the_first_turn() -> None:
    watcher = beside_a_hot_leg(covers=False)
    watcher.part("p0", "p1")
    assert JOURNAL_NODE_DELAY_S <= watcher.run(30.0) <= JOURNAL_NODE_DELAY_S + 1.0


def test_of_two_legs_that_start_together_the_one_that_has_more_goes_first() -> None:
    later = PeerStatus(1, active=False, since_ns=9)
    assert Watcher(legs={"p0": [later]}).run(10.0) <= (MIN_STATUSES + 1) * STATUS_INTERVAL_S
    earlier = PeerStatus(1, active=False, since_ns=3)
    waited_s = Watcher(legs={"p0": [earlier]}).run(10.0)
    assert STARTUP_DELAY_S <= waited_s <= STARTUP_DELAY_S + 2.0, "in the end somebody has to be hot"


def test_the_newest_journal_counts_for_more_than_what_was_read() -> None:
    with_journal = PeerStatus(1, active=False, journal_epoch=50, since_ns=9)
    assert Watcher(legs={"p0": [with_journal]}).run(2.0) is None
    own = PeerStatus(2, active=False, journal_epoch=60, since_ns=9)
    assert Watcher(legs={"p0": [with_journal]}, own=own).run(2.0) is not None


def test_a_leg_alone_waits_for_another_one_that_may_have_more() -> None:
    waited_s = Watcher().run(10.0)
    assert STARTUP_DELAY_S <= waited_s <= STARTUP_DELAY_S + 2.0


def test_a_new_leg_leaves_a_dead_hot_ones_place_to_the_one_that_stood_by() -> None:
    ready = PeerStatus(3, active=False, ready=True, since_ns=9)
    assert Watcher(legs={"p0": [ready]}).run(2.0) is None


def test_the_hot_leg_learns_of_a_later_one_alone() -> None:
    watcher = Watcher(legs={"p0": [HOT]})
    watcher.run(1.0)
    assert watcher.vigil.superseded_by(101) is None
    assert watcher.vigil.superseded_by(99) == 100


def test_the_partner_is_who_is_there_now() -> None:
    watcher = beside_a_hot_leg()
    assert watcher.vigil.peer(watcher.now) == HOT
    watcher.part("p0", "p1")
    assert watcher.vigil.peer(watcher.now + 1.0) is None
    assert watcher.vigil.active == HOT, "what it said last still counts"


@pytest.mark.parametrize("publisher", ["p0", "unknown"])
def test_words_of_its_own_and_of_nobody_are_ignored(publisher: str) -> None:
    vigil = Election(2)
    vigil.link_opened("p0")
    vigil.status_received(publisher, PeerStatus(2 if publisher == "p0" else 1, active=True, epoch=7))
    vigil.peer_left(publisher, 1, 0.0)
    assert vigil.active is None


class Publishers(RuleBasedStateMachine):
    """A hot leg that lives, and publishers that die, stand still, come back and lose connections; whatever
    they do, nobody takes over as long as the hot leg comes back before it is missed."""

    def __init__(self) -> None:
        super().__init__()
        self.vigil = Election(2)
        self.now = 0.0
        self.connected: dict[str, bool] = {}
        self.count = 0

    @rule()
    def a_publisher_comes(self) -> None:
        """The hot leg connects to it as well, and speaks at once."""
        self.count += 1
        name = f"p{self.count}"
        self.vigil.link_opened(name)
        self.connected[name] = True
        self.vigil.status_received(name, HOT)

    @rule(data=st.data())
    def a_publisher_dies(self, data: st.DataObject) -> None:
        if self.connected:
            name = data.draw(st.sampled_from(sorted(self.connected)))
            del self.connected[name]
            self.vigil.link_closed(name, self.now)

    @rule(data=st.data())
    def the_hot_leg_loses_a_connection_and_is_back(self, data: st.DataObject) -> None:
        if self.connected:
            name = data.draw(st.sampled_from(sorted(self.connected)))
            self.vigil.peer_left(name, HOT.instance_id, self.now)
            self.now += RECONNECT_GRACE_S / 2
            self.vigil.status_received(name, HOT)

    @rule(still=st.sets(st.integers(1, 9)), seconds=st.floats(0.25, 20.0))
    def time_passes(self, still: set[int], seconds: float) -> None:
        """Publishers that stand still pass nothing on; the others pass on a word for each of their own."""
        self.now += seconds
        for name in self.connected:
            if int(name[1:]) not in still:
                for _ in range(int(seconds / STATUS_INTERVAL_S)):
                    self.vigil.status_received(name, HOT)
                    self.vigil.publisher_alive(name)

    @invariant()
    def nobody_takes_over(self) -> None:
        assert not self.vigil.must_take_over(OWN, self.now, covers=True)


TestPublishers = Publishers.TestCase
TestPublishers.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
