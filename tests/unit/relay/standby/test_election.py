"""When a leg of a critical stream takes over, and when it does not."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.standby.election import JOURNAL_S, KNOWN_WORDS, MISSED_WORDS, PARTED_S, YIELD_S, Vigil
from relay.standby.peer_status import WORD_EVERY_S, Word

HOT = Word(1, hot=True, epoch=100)
OWN = Word(2, hot=False, since_ns=5)


@dataclass
class Watcher:
    """The leg 2 with publishers that speak every `WORD_EVERY_S`; `legs` say their words over those of them
    that they are connected to."""

    legs: dict[str, list[Word]] = field(default_factory=dict)
    publishers: set[str] = field(default_factory=lambda: {"p0", "p1"})
    vigil: Vigil = field(default_factory=lambda: Vigil(2))
    now: float = 100.0
    covers: bool = True
    own: Word = OWN

    def __post_init__(self) -> None:
        for publisher in self.publishers:
            self.vigil.opened(publisher)

    def run(self, seconds: float) -> float | None:
        """After how long it takes over; None if it does not."""
        began = self.now
        while self.now < began + seconds:
            self.now += WORD_EVERY_S
            for publisher in sorted(self.publishers):
                for word in self.legs.get(publisher, []):
                    self.vigil.heard(publisher, word)
                self.vigil.alive(publisher)
            if self.vigil.must_take_over(self.own, self.now, covers=self.covers):
                return self.now - began
        return None

    def part(self, *publishers: str) -> None:
        """The hot leg's connections to these end."""
        for publisher in publishers:
            self.legs.pop(publisher, None)
            self.vigil.parted(publisher, HOT.leg, self.now)


def beside_a_hot_leg(**more: object) -> Watcher:
    watcher = Watcher(legs={"p0": [HOT], "p1": [HOT]}, **more)
    assert watcher.run(30.0) is None, "there is a hot leg"
    return watcher


def test_the_death_of_the_hot_leg_is_noticed_at_once() -> None:
    watcher = beside_a_hot_leg()
    watcher.part("p0", "p1")
    assert watcher.run(10.0) <= PARTED_S + 2 * WORD_EVERY_S


def test_a_hot_leg_that_stands_still_is_noticed_within_its_words() -> None:
    watcher = beside_a_hot_leg()
    watcher.legs.clear()
    assert watcher.run(10.0) <= (MISSED_WORDS + 1) * WORD_EVERY_S


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
    watcher.vigil.ended("p0", watcher.now)
    assert watcher.run(30.0) is None


def test_without_a_publisher_nobody_takes_over_and_with_a_new_one_not_at_once() -> None:
    watcher = beside_a_hot_leg()
    watcher.publishers, watcher.legs = set(), {}
    for publisher in ("p0", "p1"):
        watcher.vigil.ended(publisher, watcher.now)
    assert watcher.run(30.0) is None
    watcher.publishers = {"p2"}
    watcher.vigil.opened("p2")
    assert watcher.run(10.0) >= KNOWN_WORDS * WORD_EVERY_S, "the hot leg has time to connect, too"


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
            watcher.vigil.alive(publisher)
            watcher.vigil.heard(publisher, HOT)
    assert not watcher.vigil.must_take_over(OWN, watcher.now, covers=True)


def test_a_leg_that_does_not_reach_back_leaves_the_journals_node_the_first_turn() -> None:
    watcher = beside_a_hot_leg(covers=False)
    watcher.part("p0", "p1")
    assert JOURNAL_S <= watcher.run(30.0) <= JOURNAL_S + 1.0


def test_of_two_legs_that_start_together_the_one_that_has_more_goes_first() -> None:
    later = Word(1, hot=False, since_ns=9)
    assert Watcher(legs={"p0": [later]}).run(10.0) <= (KNOWN_WORDS + 1) * WORD_EVERY_S
    earlier = Word(1, hot=False, since_ns=3)
    waited_s = Watcher(legs={"p0": [earlier]}).run(10.0)
    assert YIELD_S <= waited_s <= YIELD_S + 2.0, "in the end somebody has to be hot"


def test_the_newest_journal_counts_for_more_than_what_was_read() -> None:
    with_journal = Word(1, hot=False, journal=50, since_ns=9)
    assert Watcher(legs={"p0": [with_journal]}).run(2.0) is None
    own = Word(2, hot=False, journal=60, since_ns=9)
    assert Watcher(legs={"p0": [with_journal]}, own=own).run(2.0) is not None


def test_a_leg_alone_waits_for_another_one_that_may_have_more() -> None:
    waited_s = Watcher().run(10.0)
    assert YIELD_S <= waited_s <= YIELD_S + 2.0


def test_a_new_leg_leaves_a_dead_hot_ones_place_to_the_one_that_stood_by() -> None:
    ready = Word(3, hot=False, ready=True, since_ns=9)
    assert Watcher(legs={"p0": [ready]}).run(2.0) is None


def test_the_hot_leg_learns_of_a_later_one_alone() -> None:
    watcher = Watcher(legs={"p0": [HOT]})
    watcher.run(1.0)
    assert watcher.vigil.superseded_by(101) is None
    assert watcher.vigil.superseded_by(99) == 100


def test_the_partner_is_who_is_there_now() -> None:
    watcher = beside_a_hot_leg()
    assert watcher.vigil.partner(watcher.now) == HOT
    watcher.part("p0", "p1")
    assert watcher.vigil.partner(watcher.now + 1.0) is None
    assert watcher.vigil.hot == HOT, "what it said last still counts"


@pytest.mark.parametrize("publisher", ["p0", "unknown"])
def test_words_of_its_own_and_of_nobody_are_ignored(publisher: str) -> None:
    vigil = Vigil(2)
    vigil.opened("p0")
    vigil.heard(publisher, Word(2 if publisher == "p0" else 1, hot=True, epoch=7))
    vigil.parted(publisher, 1, 0.0)
    assert vigil.hot is None


class Publishers(RuleBasedStateMachine):
    """A hot leg that lives, and publishers that die, stand still, come back and lose connections; whatever
    they do, nobody takes over as long as the hot leg comes back before it is missed."""

    def __init__(self) -> None:
        super().__init__()
        self.vigil = Vigil(2)
        self.now = 0.0
        self.connected: dict[str, bool] = {}
        self.count = 0

    @rule()
    def a_publisher_comes(self) -> None:
        """The hot leg connects to it as well, and speaks at once."""
        self.count += 1
        name = f"p{self.count}"
        self.vigil.opened(name)
        self.connected[name] = True
        self.vigil.heard(name, HOT)

    @rule(data=st.data())
    def a_publisher_dies(self, data: st.DataObject) -> None:
        if self.connected:
            name = data.draw(st.sampled_from(sorted(self.connected)))
            del self.connected[name]
            self.vigil.ended(name, self.now)

    @rule(data=st.data())
    def the_hot_leg_loses_a_connection_and_is_back(self, data: st.DataObject) -> None:
        if self.connected:
            name = data.draw(st.sampled_from(sorted(self.connected)))
            self.vigil.parted(name, HOT.leg, self.now)
            self.now += PARTED_S / 2
            self.vigil.heard(name, HOT)

    @rule(still=st.sets(st.integers(1, 9)), seconds=st.floats(0.25, 20.0))
    def time_passes(self, still: set[int], seconds: float) -> None:
        """Publishers that stand still pass nothing on; the others pass on a word for each of their own."""
        self.now += seconds
        for name in self.connected:
            if int(name[1:]) not in still:
                for _ in range(int(seconds / WORD_EVERY_S)):
                    self.vigil.heard(name, HOT)
                    self.vigil.alive(name)

    @invariant()
    def nobody_takes_over(self) -> None:
        assert not self.vigil.must_take_over(OWN, self.now, covers=True)


TestPublishers = Publishers.TestCase
TestPublishers.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
