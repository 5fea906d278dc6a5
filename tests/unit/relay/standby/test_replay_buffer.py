"""What a standby instance remembers, and where it goes on: every event behind what is stored, once, in
order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.binance.streams import Venue, parse_stream
from relay.model.position import StoredPosition, digest_of
from relay.standby.replay_buffer import (
    DISCONTINUITY,
    MAX_UNFOUND_STATUSES,
    Entry,
    JoinQuality,
    ReplayBuffer,
    ReplayPoint,
    replay_point_after,
    replay_point_by_time,
)
from tests.support.payloads import BOOKS, MS, TRADES, book, payload, trade

both_kinds = pytest.mark.parametrize("name", [TRADES, BOOKS])


def buffer(name: str = TRADES, max_messages: int = 100) -> ReplayBuffer:
    return ReplayBuffer(parse_stream(Venue.USDM, name), max_messages=max_messages, max_bytes=1 << 20)


def read(one: ReplayBuffer, name: str, *numbers: int) -> None:
    for number in numbers:
        one.append([payload(name, number)], number * MS)


def point(name: str, number: int, epoch: int = 7) -> StoredPosition:
    event_id = number if name == TRADES else -1
    return StoredPosition(epoch, number, event_id, number * MS, digest_of(payload(name, number)))


def told(one: ReplayBuffer, name: str, number: int, held: int = 1, *, reading: bool = True) -> bool:
    return one.forget_stored(point(name, number), held, reading=reading)


def names(one: ReplayBuffer) -> list[int]:
    return [entry.recv_ns // MS for entry in one.entries if entry.is_event]


@both_kinds
def test_what_is_stored_is_forgotten_but_for_the_last_event(name: str) -> None:
    one = buffer(name)
    read(one, name, *range(1, 10))
    assert told(one, name, 6)
    assert names(one) == [6, 7, 8, 9]
    assert one.covers
    assert one.memory_bytes == sum(len(entry.payload) for entry in one.entries)
    assert one.replay_point_after(one.entries, point(name, 8)) == ReplayPoint(3, JoinQuality.EXACT)


@both_kinds
def test_an_event_that_is_yet_to_come_is_waited_for(name: str) -> None:
    one = buffer(name)
    read(one, name, 1, 2, 3)
    told(one, name, 2)
    assert one.replay_point_after(one.entries, point(name, 5)) is None
    read(one, name, 4, 5, 6)
    assert one.replay_point_after(one.entries, point(name, 5)) == ReplayPoint(4, JoinQuality.EXACT)


def test_without_the_event_itself_its_id_tells_what_comes_next() -> None:
    one = buffer()
    read(one, TRADES, 5, 6)
    assert one.replay_point_after(one.entries, point(TRADES, 3)) == ReplayPoint(0, JoinQuality.BY_ID)
    assert not one.covers


@both_kinds
def test_with_nothing_stored_all_of_it_comes_next(name: str) -> None:
    one = buffer(name)
    read(one, name, 5, 6)
    assert one.replay_point_after(one.entries, StoredPosition()) == ReplayPoint(0, JoinQuality.EXACT)


@both_kinds
def test_after_a_calm_everything_that_comes_is_new(name: str) -> None:
    """The last stored event came before this instance began to read, and nothing is on its way any more."""
    one = buffer(name)
    told(one, name, 3, held=0)
    assert not one.covers, "said once, it may be on its way to this instance"
    told(one, name, 3, held=0)
    assert one.covers
    read(one, name, 4, 5)
    assert one.replay_point_after(one.entries, point(name, 3)) == ReplayPoint(0, JoinQuality.EXACT)


@both_kinds
@pytest.mark.parametrize(("held", "reading"), [(1, True), (0, False)])
def test_no_calm_while_something_is_held_or_an_instance_reads_nothing(
    name: str, held: int, reading: bool
) -> None:
    one = buffer(name)
    for _ in range(3):
        told(one, name, 3, held=held, reading=reading)
    assert not one.covers


@both_kinds
@pytest.mark.parametrize("number", [2, 5])
def test_there_is_no_calm_while_this_instance_reads_events(name: str, number: int) -> None:
    """The active instance has not read them, and who knows what else."""
    one = buffer(name)
    read(one, name, number)
    for _ in range(3):
        told(one, name, 3, held=0)
    assert not one.covers


@both_kinds
def test_there_is_no_calm_while_the_active_instance_stands_still(name: str) -> None:
    """What it has stored is not in memory any more, but in what was evicted."""
    one = buffer(name, max_messages=8)
    read(one, name, 1, 2)
    told(one, name, 2)
    read(one, name, *range(3, 12))
    assert one.evict()
    for _ in range(3):
        assert not told(one, name, 2, held=0)
    assert one.covers


@both_kinds
def test_a_break_ends_what_reaches_back_until_it_is_behind_what_is_stored(name: str) -> None:
    one = buffer(name)
    read(one, name, 1, 2, 3)
    told(one, name, 2)
    one.mark_discontinuity()
    one.mark_discontinuity()
    assert not one.covers
    read(one, name, 5, 6)
    assert [entry.name for entry in one.entries].count(DISCONTINUITY) == 1
    told(one, name, 3)
    assert not one.covers
    told(one, name, 5)
    assert one.covers
    assert names(one) == [5, 6]


@both_kinds
def test_more_than_memory_may_hold_is_evicted_oldest_first(name: str) -> None:
    one = buffer(name, max_messages=8)
    read(one, name, *range(1, 9))
    assert one.evict() == []
    read(one, name, 9)
    evicted = one.evict()
    assert [entry.recv_ns // MS for entry in evicted] == [1, 2, 3]
    assert names(one) == [4, 5, 6, 7, 8, 9]


@both_kinds
def test_what_is_kept_elsewhere_still_reaches_back_and_what_is_lost_does_not(name: str) -> None:
    one = buffer(name, max_messages=8)
    read(one, name, 1, 2)
    told(one, name, 1)
    read(one, name, *range(3, 12))
    assert one.evict()
    for _ in range(2 * MAX_UNFOUND_STATUSES):
        assert not told(one, name, 2), "it was evicted, so all of that has to stay"
    assert one.covers
    assert told(one, name, 9), "it is in memory, so nothing of that has to stay"
    one.evicted_lost()
    assert not one.covers


def test_an_event_that_is_never_found_ends_what_reaches_back() -> None:
    one = buffer(BOOKS)
    read(one, BOOKS, 1, 2)
    told(one, BOOKS, 1)
    for number in range(MAX_UNFOUND_STATUSES + 1):
        assert one.covers
        told(one, BOOKS, 100 + number)
    assert not one._anchored


def test_without_ids_the_time_of_reading_has_to_do_where_two_sockets_differ() -> None:
    """What was read before and since then is there, only by other bytes."""
    one = buffer(BOOKS)
    for second in range(5):
        one.append([book(1000 + second)], second * 1000 * MS)
    other = StoredPosition(7, 1, -1, 3500 * MS, 12345)
    for _ in range(2 * MAX_UNFOUND_STATUSES):
        one.forget_stored(other, 1, reading=True)
    assert one.covers
    assert one.replay_point_after(one.entries, other) is None
    assert replay_point_by_time(list(one.entries), other) == ReplayPoint(4, JoinQuality.BY_TIME)


def test_by_time_nothing_may_be_left() -> None:
    entries = [Entry(1, b"x", 5)]
    assert replay_point_by_time(entries, StoredPosition(1, 1, -1, 9, 0)) == ReplayPoint(
        1, JoinQuality.BY_TIME
    )


def test_of_equal_events_the_one_that_was_read_at_that_time_is_meant() -> None:
    entries = [Entry(4, b"x", at * 1000 * MS) for at in range(5)]
    assert replay_point_after(entries, StoredPosition(1, 1, -1, 2010 * MS, 4)) == ReplayPoint(
        3, JoinQuality.EXACT
    )


def test_frames_that_are_no_events_keep_their_place_and_requests_for_a_new_connection_are_told() -> None:
    one = buffer()
    seen = one.append([trade(1), b"nonsense", b'{"result":null,"id":1}', b'{"e":"serverShutdown","E":1}'], 1)
    assert (seen.events, seen.shutdown) == (1, True)
    assert [entry.payload for entry in one.entries] == [trade(1), b"nonsense"]


def test_reading_counts_from_its_first_event_until_it_breaks() -> None:
    one = buffer()
    assert one.since_ns == 0
    read(one, TRADES, 3, 4)
    assert one.since_ns == 3 * MS
    one.mark_discontinuity()
    assert one.since_ns == 0
    read(one, TRADES, 9)
    assert one.since_ns == 9 * MS


@dataclass
class Course:
    """One stream on two sockets: what the active instance has accepted and stored, and what the standby
    remembers, with all that its memory evicted kept."""

    name: str
    one: ReplayBuffer
    evicted: list[Entry] = field(default_factory=list)
    made: int = 0
    seen: int = 0
    accepted: int = 0
    stored: int = 0

    def step(self, kind: str, count: int) -> None:
        match kind:
            case "make":
                self.made += count
            case "read":
                last = min(self.made, self.seen + count)
                read(self.one, self.name, *range(self.seen + 1, last + 1))
                self.seen = last
                self.evicted += self.one.evict()
            case "accept":
                self.accepted = min(self.made, self.accepted + count)
            case "store":
                self.stored = min(self.accepted, self.stored + count)
            case "say":
                held = self.accepted - self.stored
                if self.stored and self.one.forget_stored(point(self.name, self.stored), held, reading=True):
                    self.evicted.clear()


steps = st.lists(
    st.tuples(st.sampled_from(["make", "read", "accept", "store", "say"]), st.integers(1, 12)), max_size=60
)


@both_kinds
@settings(max_examples=1000, deadline=None)
@given(steps, st.integers(0, 5), st.integers(0, 20))
def test_whoever_reaches_back_goes_on_with_the_very_next_event(
    name: str, course: list[tuple[str, int]], begun: int, late: int
) -> None:
    """Whatever was made, read, accepted, stored and said in whatever order, from wherever it began."""
    at = Course(name, buffer(name, max_messages=8), [], begun, begun, begun, begun)
    for kind, count in course:
        at.step(kind, count)
    if not at.one.covers:
        return
    # The active instance stores some more before it dies; the standby instance's socket brings all of it in
    # the end.
    at.step("accept", late)
    at.step("store", late)
    at.step("read", at.made)
    remembered = [*at.evicted, *at.one.entries]
    found = at.one.replay_point_after(remembered, point(name, at.stored))
    assert found is not None and found.quality is JoinQuality.EXACT
    numbers = [entry.recv_ns // MS for entry in remembered[found.entry_index :]]
    assert numbers == list(range(at.stored + 1, at.made + 1))
