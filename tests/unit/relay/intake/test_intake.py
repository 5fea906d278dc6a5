"""What becomes of the frames of one stream: numbers, repeats, losses, rejections."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.binance.backfill import GapFill
from relay.binance.streams import Venue, parse_stream
from relay.delivery.window import SendWindow
from relay.intake.intake import NO_SAMPLE, Intake, IntakeResult
from relay.journal.damage import JournalLoss
from relay.losses.entry import LossEntry, read_entry
from relay.model.choices import Overflow
from relay.model.gap import FillOutcome, FillRange, Gap
from relay.model.record_batch import EVENT_KINDS, NO_EVENT_ID, RecordBatch, RecordKind
from relay.primitives.text import utc
from tests.support.records import Record, read_records

SECOND = 1_000_000_000


def intake(
    name: str = "btcusdt@trade", *, venue: Venue = Venue.USDM, heals: bool = False, **known: int
) -> tuple[Intake, SendWindow]:
    window = SendWindow(max_messages=100, max_bytes=1 << 20, overflow=Overflow.SPILL)
    spec = parse_stream(venue, name)
    return Intake(spec, window, epoch=5, heals=heals, subject="md.trade", **known), window


def healing(last_id: int = 7) -> Intake:
    """An intake that heals, behind the event `last_id`."""
    return intake(heals=True, last_offset=1, last_event_id=last_id)[0]


def found(first: int, last: int) -> FillRange:
    return FillRange(first, last, FillOutcome.FOUND, [trade(number) for number in range(first, last + 1)])


def trade(number: int, symbol: str = "BTCUSDT", sent_ms: int = 10**12) -> bytes:
    """By itself sent later than it is read, which nothing takes for true."""
    fields = {"e": "trade", "E": sent_ms, "T": 1, "s": symbol, "t": number, "p": "1.0", "q": "2"}
    return orjson.dumps(fields | {"X": "MARKET", "m": True})


def ticker() -> bytes:
    return orjson.dumps({"e": "24hrTicker", "E": 10**12, "s": "BTCUSDT"})


def losses(journal: bytes) -> list[dict[str, object]]:
    return [orjson.loads(each.payload) for each in read_records(journal) if each.kind == RecordKind.LOSS]


def test_events_are_numbered_and_keep_their_bytes() -> None:
    subject, window = intake(last_offset=41)
    taken = subject.accept([trade(7), trade(8)], 3 * SECOND)
    first, second = read_records(taken.journal)
    assert (first.offset, first.epoch, first.seq, first.recv_ns, first.event_id) == (42, 5, 1, 3 * SECOND, 7)
    assert (second.offset, second.seq, second.payload) == (43, 2, trade(8))
    assert (taken.accepted, taken.last_offset, window.queued) == (2, 43, 2)


def test_an_id_seen_before_is_counted_as_a_repeat_and_goes_nowhere() -> None:
    subject, window = intake()
    subject.accept([trade(7), trade(8), trade(9)], SECOND)
    taken = subject.accept([trade(8), trade(9), trade(10)], SECOND)
    assert [record.event_id for record in read_records(taken.journal)] == [10]
    assert window.counts.repeated == 2
    assert window.counts.received == 4


def test_a_gap_in_trade_ids_is_written_down_before_the_event_that_shows_it() -> None:
    subject, _ = intake()
    subject.accept([trade(7)], SECOND)
    taken = subject.accept([trade(11)], 2 * SECOND)
    assert [record.kind for record in read_records(taken.journal)] == [RecordKind.LOSS, RecordKind.EVENT]
    (loss,) = losses(taken.journal)
    assert (loss["first_id"], loss["last_id"], loss["count"], loss["cause"]) == (8, 10, 3, "upstream")
    assert subject.lost == 3


def test_a_gap_after_a_disconnection_names_it_as_the_cause() -> None:
    subject, _ = intake()
    subject.accept([trade(7)], SECOND)
    subject.disconnected()
    (loss,) = losses(subject.accept([trade(9)], 2 * SECOND).journal)
    assert (loss["cause"], loss["count"], loss["from"]) == ("disconnect", 1, "1970-01-01T00:00:01.000Z")


def test_a_gap_begins_when_the_event_before_it_was_sent_however_late_that_was_read() -> None:
    subject, _ = intake()
    subject.accept([trade(7, sent_ms=3_300)], 10 * SECOND)
    subject.disconnected()
    (loss,) = losses(subject.accept([trade(9)], 12 * SECOND).journal)
    assert (loss["from"], loss["to"]) == ("1970-01-01T00:00:03.300Z", "1970-01-01T00:00:12.000Z")


def test_a_disconnection_without_a_gap_in_ids_lost_nothing() -> None:
    subject, _ = intake()
    subject.accept([trade(7)], SECOND)
    subject.disconnected()
    assert losses(subject.accept([trade(8)], 2 * SECOND).journal) == []


def test_a_stream_without_ids_announces_every_spell_of_darkness() -> None:
    subject, _ = intake("btcusdt@ticker")
    subject.accept([ticker()], SECOND)
    subject.disconnected()
    (loss,) = losses(subject.accept([ticker()], 4 * SECOND).journal)
    assert (loss["first_id"], loss["count"], loss["cause"]) == (None, None, "disconnect")
    assert losses(subject.accept([ticker()], 5 * SECOND).journal) == []


def test_a_spell_in_which_the_clock_is_set_back_is_covered_by_both_clocks() -> None:
    subject, _ = intake("btcusdt@ticker")
    subject.accept([ticker()], 7000 * SECOND)
    subject.disconnected()
    subject.clock_set_back(3600 * SECOND)
    (loss,) = losses(subject.accept([ticker()], 3405 * SECOND).journal)
    assert (loss["from"], loss["to"]) == (utc(3400 * SECOND), utc(7005 * SECOND))
    subject.disconnected()
    (loss,) = losses(subject.accept([ticker()], 3410 * SECOND).journal)
    assert (loss["from"], loss["to"]) == (utc(3405 * SECOND), utc(3410 * SECOND)), "by the new clock alone"


def test_what_comes_next_after_the_clock_was_set_back_takes_the_long_way_once() -> None:
    subject, _ = intake()
    subject.accept([trade(100)], 7000 * SECOND)
    subject.clock_set_back(3600 * SECOND)
    assert subject.accept_fast([trade(101)], 3401 * SECOND) is None
    subject.accept([trade(101)], 3401 * SECOND)
    assert subject.accept_fast([trade(102)], 3402 * SECOND) is not None


def test_a_gap_that_ends_before_it_began_by_the_clock_says_so() -> None:
    subject, _ = intake("btcusdt@ticker")
    subject.accept([ticker()], 3405 * SECOND)
    (loss,) = losses(subject.preceded_by(NO_EVENT_ID, 7000 * SECOND).journal)
    assert (loss["from"], loss["to"]) == (utc(3405 * SECOND), utc(7000 * SECOND))
    assert "clock was set back" in loss["reason"]


def test_a_new_incarnation_announces_the_gap_behind_the_last_one() -> None:
    subject, _ = intake(last_offset=9, last_event_id=100, last_event_ns=SECOND)
    (loss,) = losses(subject.accept([trade(104)], 3 * SECOND).journal)
    assert (loss["first_id"], loss["last_id"], loss["cause"]) == (101, 103, "disconnect")
    assert (loss["from"], loss["to"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:03.000Z")


def test_a_new_incarnation_of_ids_without_predecessors_announces_the_spell_behind_the_last_one() -> None:
    subject, _ = intake("btcusdt@blockTrade", venue=Venue.SPOT, last_event_id=100, last_event_ns=SECOND)
    block = orjson.dumps({"e": "blockTrade", "E": 1, "s": "BTCUSDT", "t": 104, "p": "1", "q": "2", "T": 1})
    (loss,) = losses(subject.accept([block], 3 * SECOND).journal)
    assert (loss["first_id"], loss["from"], loss["to"]) == (
        None,
        "1970-01-01T00:00:01.000Z",
        "1970-01-01T00:00:03.000Z",
    )


@pytest.mark.parametrize("known", [{}, {"last_offset": 9, "last_event_id": 50}])
@pytest.mark.parametrize("heals", [False, True])
def test_what_follows_another_incarnations_event_without_a_seam_is_no_gap(known, heals) -> None:
    """Whatever an older journal knew."""
    subject, window = intake(heals=heals, **known)
    subject.follow(100, 100, SECOND, seamless=True)
    taken = subject.accept([trade(100), trade(101)], 2 * SECOND)
    assert [record.event_id for record in read_records(taken.journal)] == [101]
    assert (window.counts.repeated, subject.losses, subject.holding) == (1, 0, False)
    assert losses(subject.preceded_by(60, SECOND).journal) == []


def test_a_gap_behind_another_incarnations_event_is_told() -> None:
    subject, _ = intake()
    subject.follow(100, 100, SECOND, seamless=False)
    (loss,) = losses(subject.accept([trade(104)], 2 * SECOND).journal)
    assert (loss["first_id"], loss["last_id"], loss["cause"]) == (101, 103, "disconnect")
    assert loss["from"] == "1970-01-01T00:00:01.000Z"


@pytest.mark.parametrize("seamless", [True, False])
def test_without_ids_only_a_seam_is_announced(seamless: bool) -> None:
    subject, _ = intake("btcusdt@ticker")
    subject.follow(NO_EVENT_ID, NO_EVENT_ID, SECOND, seamless=seamless)
    assert len(losses(subject.accept([ticker()], 2 * SECOND).journal)) == (0 if seamless else 1)
    subject.disconnected()
    assert len(losses(subject.accept([ticker()], 3 * SECOND).journal)) == 1


def test_links_go_on_behind_another_incarnations_event() -> None:
    subject, _ = intake("btcusdt@rpiDepth@500ms")

    def depth(last: int, previous: int) -> bytes:
        fields = {"e": "depthUpdate", "s": "BTCUSDT", "U": last, "u": last, "pu": previous, "b": [], "a": []}
        return orjson.dumps(fields)

    subject.follow(NO_EVENT_ID, 20, SECOND, seamless=True)
    assert losses(subject.accept([depth(25, 20)], 2 * SECOND).journal) == []
    (loss,) = losses(subject.accept([depth(40, 30)], 3 * SECOND).journal)
    assert (loss["first_id"], loss["last_id"]) == (26, 30)


def test_depth_updates_are_chained_by_pu_and_their_gap_has_no_count() -> None:
    subject, _ = intake("btcusdt@depth@100ms")

    def depth(first: int, last: int, previous: int) -> bytes:
        fields = {"e": "depthUpdate", "s": "BTCUSDT", "U": first, "u": last, "pu": previous, "b": [], "a": []}
        return orjson.dumps(fields)

    subject.accept([depth(1, 10, 0), depth(15, 20, 10)], SECOND)
    (loss,) = losses(subject.accept([depth(40, 45, 30)], SECOND).journal)
    assert (loss["first_id"], loss["last_id"], loss["count"]) == (21, 30, None)
    assert subject.lost == 0


def test_a_frame_of_another_stream_is_rejected_with_its_bytes_and_a_reason() -> None:
    subject, window = intake()
    (record,) = read_records(subject.accept([trade(7, "ETHUSDT")], SECOND).journal)
    report = orjson.loads(record.payload)
    assert record.kind == RecordKind.REJECTED
    assert report["raw"].encode() == trade(7, "ETHUSDT")
    assert "ETHUSDT" in report["reason"]
    assert (window.counts.received, window.counts.rejected, window.queued) == (1, 1, 0)


def test_control_answers_are_no_events() -> None:
    subject, window = intake()
    taken = subject.accept([b'{"result":null,"id":1}', b'{"e":"serverShutdown","E":1}'], SECOND)
    assert taken.shutdown
    assert (taken.journal, taken.accepted, window.counts.received) == (b"", 0, 0)


def test_an_id_below_everything_seen_is_a_new_event() -> None:
    """A reset of ids by the exchange must not silence the stream."""
    subject, window = intake()
    subject.accept([trade(500), trade(501)], SECOND)
    taken = subject.accept([trade(1), trade(2)], SECOND)
    assert [record.event_id for record in read_records(taken.journal)] == [1, 2]
    assert window.counts.repeated == 0
    assert NO_EVENT_ID not in [record.event_id for record in read_records(taken.journal)]


def test_the_stored_end_of_the_last_incarnation_shows_the_gap_before_the_first_event() -> None:
    subject, _ = intake()
    assert subject.preceded_by(100, 7 * SECOND).journal == b""
    (loss,) = losses(subject.accept([trade(104)], 9 * SECOND).journal)
    assert (loss["first_id"], loss["last_id"], loss["cause"]) == (101, 103, "disconnect")
    assert loss["from"] == "1970-01-01T00:00:07.000Z"


def test_the_stored_end_of_the_last_incarnation_may_come_after_the_first_event() -> None:
    subject, _ = intake()
    subject.accept([trade(104), trade(105)], 9 * SECOND)
    (loss,) = losses(subject.preceded_by(100, 7 * SECOND).journal)
    assert (loss["first_id"], loss["last_id"], loss["count"]) == (101, 103, 3)
    assert losses(subject.preceded_by(100, 7 * SECOND).journal) == [], "announced once"


def test_a_stream_without_ids_announces_the_time_between_two_incarnations() -> None:
    subject, _ = intake("btcusdt@ticker")
    subject.accept([ticker()], 9 * SECOND)
    (loss,) = losses(subject.preceded_by(NO_EVENT_ID, 7 * SECOND).journal)
    assert (loss["first_id"], loss["from"], loss["to"]) == (
        None,
        "1970-01-01T00:00:07.000Z",
        "1970-01-01T00:00:09.000Z",
    )


def test_nothing_is_announced_when_the_ids_go_on_where_the_last_incarnation_ended() -> None:
    subject, _ = intake()
    subject.accept([trade(101)], 9 * SECOND)
    assert losses(subject.preceded_by(100, 7 * SECOND).journal) == []
    assert subject.lost == 0


def numbers(journal: bytes) -> list[int]:
    return [record.event_id for record in read_records(journal) if record.kind in EVENT_KINDS]


def test_an_event_from_before_a_lost_gap_is_a_repeat_too() -> None:
    subject, window = intake()
    subject.accept([trade(7), trade(9)], SECOND)
    assert subject.accept([trade(7)], 2 * SECOND).journal == b""
    assert window.counts.repeated == 1


def test_a_gap_that_rest_may_heal_holds_up_what_is_behind_it() -> None:
    subject = healing()
    taken = subject.accept([trade(11), trade(12)], 2 * SECOND)
    assert (taken.journal, taken.accepted, taken.held) == (b"", 0, 2)
    assert taken.gap is not None and taken.gap is subject.gap
    assert (taken.gap.first_id, taken.gap.last_id, taken.gap.sample) == (8, 10, trade(11))
    assert subject.accept([trade(13)], 3 * SECOND).held == 1


def test_healed_events_come_first_and_the_ledger_names_them() -> None:
    subject = healing()
    subject.accept([trade(11), trade(12)], 2 * SECOND)
    healed = read_records(subject.fill([found(8, 10)], 4 * SECOND).journal)
    assert [(each.kind, each.event_id, each.recv_ns) for each in healed] == [
        (RecordKind.HEALED, number, 4 * SECOND) for number in (8, 9, 10)
    ]
    journal = subject.end_hold("").journal
    (entry,) = losses(journal)
    assert (entry["first_id"], entry["last_id"], entry["count"], entry["healed"]) == (8, 10, 3, True)
    assert entry["subject"] == "md.trade"
    assert [each.seq for each in read_records(journal)] == [3, 4, 5]
    assert numbers(journal) == [11, 12]
    assert (subject.lost, subject.healed, subject.holding) == (0, 3, False)


def test_what_is_not_healed_in_time_is_lost_and_the_rest_goes_on() -> None:
    subject = healing()
    subject.accept([trade(14)], 2 * SECOND)
    subject.fill(
        [found(8, 9), FillRange(10, 10, FillOutcome.ABSENT), FillRange(11, 11, FillOutcome.UNREACHED)],
        3 * SECOND,
    )
    journal = subject.end_hold("too late").journal
    assert [(e["first_id"], e["last_id"], e["count"], e["healed"]) for e in losses(journal)] == [
        (8, 9, 2, True), (10, 10, 0, True), (11, 11, 1, False), (12, 13, 2, False)
    ]  # fmt: skip
    assert [e["reason"] for e in losses(journal)][2:] == ["too late", "too late"]
    assert [e["suspect"] for e in losses(journal)] == [False, False, True, True]
    assert numbers(journal) == [14]
    assert subject.lost == 3


def test_a_second_gap_behind_the_first_holds_up_the_rest_again() -> None:
    subject = healing()
    first = subject.accept([trade(9), trade(12)], 2 * SECOND).gap
    subject.fill([found(8, 8)], 3 * SECOND)
    taken = subject.end_hold("")
    assert numbers(taken.journal) == [9]
    assert taken.gap is subject.gap is not first
    assert taken.gap is not None and (taken.gap.first_id, taken.gap.last_id) == (10, 11)
    subject.fill([found(10, 11)], 4 * SECOND)
    assert numbers(subject.end_hold("").journal) == [12]


def test_repeats_of_what_rest_gave_go_nowhere() -> None:
    subject = healing()
    subject.accept([trade(10)], 2 * SECOND)
    subject.fill([found(8, 9)], 3 * SECOND)
    subject.end_hold("")
    assert subject.accept([trade(8), trade(9), trade(10)], 4 * SECOND).journal == b""


def test_a_connection_that_ends_while_events_are_held_is_the_cause_of_the_next_gap() -> None:
    subject = healing()
    subject.accept([trade(9)], 2 * SECOND)
    subject.disconnected()
    subject.accept([trade(12)], 3 * SECOND)
    subject.fill([found(8, 8)], 3 * SECOND)
    gap = subject.end_hold("").gap
    assert gap is not None
    assert (gap.cause, gap.from_ns, gap.to_ns) == ("disconnect", 2 * SECOND, 3 * SECOND)


def test_a_repair_comes_beside_the_stream_with_its_own_entry() -> None:
    subject = healing()
    gap = subject.accept([trade(11)], 2 * SECOND).gap
    assert gap is not None
    subject.end_hold("too late")
    journal = subject.repair(gap, [found(8, 9), FillRange(10, 10, FillOutcome.ABSENT)], 9 * SECOND).journal
    repairs = [each for each in read_records(journal) if each.kind == RecordKind.REPAIR]
    assert [(each.event_id, each.payload) for each in repairs] == [(8, trade(8)), (9, trade(9))]
    assert [(e["first_id"], e["last_id"], e["count"], e["subject"]) for e in losses(journal)] == [
        (8, 9, 2, "md.trade.repair"), (10, 10, 0, None)
    ]  # fmt: skip
    assert (subject.lost, subject.repaired) == (3, 2)


def test_too_much_held_ends_the_hold() -> None:
    subject, _ = intake(heals=True, last_offset=1, last_event_id=7, max_held=3)
    taken = subject.accept([trade(number) for number in (10, 11, 12, 13)], 2 * SECOND)
    assert numbers(taken.journal) == [10, 11, 12, 13]
    assert taken.gap is not None and subject.gap is None, "it is asked about all the same"
    assert subject.lost == 2


def test_nothing_is_accepted_before_it_is_known_what_came_before() -> None:
    subject, _ = intake(heals=True)
    assert subject.accept([trade(104)], 9 * SECOND).journal == b""
    taken = subject.preceded_by(100, 7 * SECOND)
    assert taken.gap is not None and (taken.gap.first_id, taken.gap.last_id) == (101, 103)
    subject.fill([found(101, 103)], 9 * SECOND)
    assert numbers(subject.end_hold("").journal) == [104]


def test_when_nothing_came_before_the_first_event_is_the_first() -> None:
    subject, _ = intake(heals=True)
    subject.accept([trade(104)], 9 * SECOND)
    taken = subject.preceded_by(NO_EVENT_ID, 0)
    assert (numbers(taken.journal), losses(taken.journal), taken.gap) == ([104], [], None)


def test_a_predecessor_that_is_known_too_late_leaves_a_gap_beside_the_stream() -> None:
    subject, _ = intake(heals=True)
    subject.accept([trade(104)], 9 * SECOND)
    assert numbers(subject.end_hold("").journal) == [104]
    taken = subject.preceded_by(100, 7 * SECOND)
    assert taken.gap is not None and subject.gap is None
    (entry,) = losses(taken.journal)
    assert (entry["first_id"], entry["last_id"], entry["healed"]) == (101, 103, False)


def test_rpi_books_are_chained_by_pu_though_their_ids_are_not_unique() -> None:
    subject, _ = intake("btcusdt@rpiDepth@500ms", heals=True)

    def update(last: int, previous: int) -> bytes:
        return orjson.dumps(
            {"e": "depthUpdate", "s": "BTCUSDT", "U": 1, "u": last, "pu": previous, "b": [], "a": []}
        )

    assert losses(subject.accept([update(10, 3), update(20, 10), update(20, 10)], SECOND).journal) == []
    taken = subject.accept([update(45, 30)], SECOND)
    (loss,) = losses(taken.journal)
    assert (loss["first_id"], loss["last_id"], loss["count"], loss["suspect"]) == (21, 30, None, False)
    assert [record.event_id for record in read_records(taken.journal)] == [NO_EVENT_ID, NO_EVENT_ID]


class HealingMachine(RuleBasedStateMachine):
    """An exchange that sends or leaves out, a REST side that gives, is slow or knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.next_id = 8
        self.sent: set[int] = set()
        self.records: list[Record] = []
        self.late: list[tuple[Gap, int]] = []
        self.asked: Gap | None = None
        self.now_ns = SECOND

    @initialize(known=st.booleans())
    def start(self, known: bool) -> None:
        self.subject = healing() if known else intake(heals=True)[0]
        self.preceded = known

    def took(self, taken: IntakeResult) -> None:
        self.records += read_records(taken.journal)
        if taken.gap is not None:
            at_once = taken.gap is self.subject.gap
            if not at_once:
                self.late.append((taken.gap, taken.gap.first_id))

    @rule(count=st.integers(1, 4), again=st.integers(0, 2))
    def send(self, count: int, again: int) -> None:
        numbers = range(self.next_id, self.next_id + count)
        repeats = sorted(self.sent)[-again:] if again else []
        self.next_id += count
        self.sent |= set(numbers)
        self.now_ns += SECOND
        self.took(self.subject.accept([trade(number) for number in (*repeats, *numbers)], self.now_ns))

    @rule(count=st.integers(1, 4))
    def leave_out(self, count: int) -> None:
        self.next_id += count

    @rule()
    def disconnect(self) -> None:
        self.subject.disconnected()

    @precondition(lambda self: not self.preceded)
    @rule(stored=st.booleans())
    def learn_what_came_before(self, stored: bool) -> None:
        self.preceded = True
        self.took(self.subject.preceded_by(7 if stored else NO_EVENT_ID, SECOND if stored else 0))

    def ranges(self, first: int, last: int, fates: list[FillOutcome]) -> list[FillRange]:
        ids = range(first, min(last, first + len(fates) - 1) + 1)
        return [
            found(each, each) if fate is FillOutcome.FOUND else FillRange(each, each, fate)
            for each, fate in zip(ids, fates, strict=False)
        ]

    @precondition(lambda self: self.subject.gap is not None)
    @rule(fates=st.lists(st.sampled_from(FillOutcome), min_size=1, max_size=4))
    def rest_answers(self, fates: list[FillOutcome]) -> None:
        gap = self.subject.gap
        assert gap is not None
        if gap is not self.asked:
            self.asked, self.told = gap, gap.first_id
        ranges = self.ranges(self.told, gap.last_id, fates)
        self.took(self.subject.fill(ranges, self.now_ns))
        self.told += len(ranges)
        if self.told > gap.last_id:
            self.took(self.subject.end_hold("REST does not have it"))

    @precondition(lambda self: self.subject.holding)
    @rule()
    def time_is_up(self) -> None:
        gap = self.subject.gap
        told = self.told if gap is not None and gap is self.asked else gap and gap.first_id
        self.took(self.subject.end_hold("too late"))
        if gap is not None and told is not None and told <= gap.last_id:
            self.late.append((gap, told))

    @precondition(lambda self: self.late)
    @rule(fates=st.lists(st.sampled_from(FillOutcome), min_size=1, max_size=4))
    def rest_answers_late(self, fates: list[FillOutcome]) -> None:
        gap, first = self.late.pop(0)
        self.took(self.subject.repair(gap, self.ranges(first, gap.last_id, fates), self.now_ns))

    def entries(self) -> list[LossEntry]:
        return [read_entry(record.payload) for record in self.records if record.kind == RecordKind.LOSS]

    def of_kind(self, kind: RecordKind) -> list[int]:
        return [record.event_id for record in self.records if record.kind == kind]

    @invariant()
    def order_is_whole(self) -> None:
        events = [record for record in self.records if record.kind in EVENT_KINDS]
        ids = [record.event_id for record in events]
        assert ids == sorted(set(ids))
        assert [record.seq for record in events] == list(range(1, len(events) + 1))
        assert set(self.of_kind(RecordKind.EVENT)) <= self.sent

    @invariant()
    def every_id_up_to_the_last_event_is_there_or_in_the_ledger(self) -> None:
        ids = [record.event_id for record in self.records if record.kind in EVENT_KINDS]
        if self.subject.holding or not ids or not self.preceded:
            return
        named = [
            (number, entry.healed, entry.count)
            for entry in self.entries()
            for number in range(entry.first_id or 0, (entry.last_id or 0) + 1)
        ]
        lost = {number for number, healed, _ in named if not healed}
        absent = {number for number, healed, count in named if healed and count == 0}
        start = ids[0] if not lost | absent else min(ids[0], *(lost | absent))
        assert set(range(start, ids[-1] + 1)) == set(ids) | lost | absent
        assert not set(ids) & (lost | absent)
        assert set(self.of_kind(RecordKind.REPAIR)) <= lost
        assert self.sent & set(range(start, ids[-1] + 1)) <= set(ids)

    @invariant()
    def counts_agree_with_records(self) -> None:
        subject = self.subject
        assert subject.healed == len(self.of_kind(RecordKind.HEALED))
        assert subject.repaired == len(self.of_kind(RecordKind.REPAIR))
        assert subject.lost == sum(entry.count or 0 for entry in self.entries() if not entry.healed)
        settled = sum(entry.count or 0 for entry in self.entries() if entry.healed)
        if not subject.holding:
            assert settled == subject.healed + subject.repaired


TestHealing = HealingMachine.TestCase
TestHealing.settings = settings(max_examples=60, stateful_step_count=30)


def from_journal(number: int, payload: bytes, event_id: int = NO_EVENT_ID) -> RecordBatch:
    return Record(RecordKind.EVENT, number, 4, number, 9 * SECOND, event_id, payload).batch


def test_what_damage_took_from_the_journal_is_written_down_with_its_ids() -> None:
    subject, _ = intake(last_event_id=12)
    taken = subject.journal_lost(JournalLoss(7, 2 * SECOND, from_journal(9, trade(11), 11)))
    (loss,) = losses(taken.journal)
    assert (loss["first_id"], loss["last_id"], loss["count"], loss["cause"]) == (8, 10, 3, "journal")
    assert losses(subject.journal_lost(JournalLoss(10, 0, from_journal(9, trade(11), 11))).journal) == []


def test_damage_with_nothing_behind_it_reaches_to_the_last_event_accepted() -> None:
    subject, _ = intake(last_event_id=12)
    (loss,) = losses(subject.journal_lost(JournalLoss(7, 2 * SECOND, None)).journal)
    assert (loss["first_id"], loss["last_id"]) == (8, 12)


def test_what_damage_took_from_the_end_of_the_journal_is_asked_for_in_the_form_of_the_newest_event() -> None:
    subject = healing(last_id=7)
    subject.accept([trade(8), trade(9)], SECOND)
    taken = subject.journal_lost(JournalLoss(7, 2 * SECOND, None))
    assert taken.gap is not None
    assert GapFill(parse_stream(Venue.USDM, "btcusdt@trade"), taken.gap, has_key=False).query()
    assert (taken.gap.first_id, taken.gap.last_id, taken.gap.sample) == (8, 9, trade(9))


def test_damage_found_before_any_event_is_read_is_written_down_and_not_asked_for() -> None:
    subject, _ = intake(heals=True, last_event_id=12, last_event_ns=3 * SECOND)
    taken = subject.journal_lost(JournalLoss(7, 2 * SECOND, None))
    (loss,) = losses(taken.journal)
    assert (taken.gap, loss["first_id"], loss["last_id"], loss["reason"]) == (None, 8, 12, NO_SAMPLE)
    assert (loss["from"], loss["to"]) == (utc(2 * SECOND), utc(3 * SECOND))


def test_damage_to_a_stream_without_ids_is_written_down_by_its_time() -> None:
    subject, _ = intake("btcusdt@ticker")
    (loss,) = losses(
        subject.journal_lost(JournalLoss(NO_EVENT_ID, 2 * SECOND, from_journal(9, ticker()))).journal
    )
    assert (loss["first_id"], loss["from"], loss["to"]) == (
        None,
        "1970-01-01T00:00:02.000Z",
        "1970-01-01T00:00:09.000Z",
    )
