from hypothesis import given
from hypothesis import strategies as st

from relay.journal.segments import (
    NO_LIMIT,
    Damage,
    DamagedRange,
    Found,
    Segment,
    current_segments,
    damage_of,
    epoch_named,
    read_batches,
    scan,
    segment_named,
)
from tests.support.records import encode

EPOCH = 1_700_000_000_000


def record(offset: int, payload: bytes = b"{}", epoch: int = EPOCH) -> bytes:
    return encode(0, offset, epoch, offset, 0, -1, payload)


def offsets(data: bytes, *, reached: int = 0, limit: int = NO_LIMIT) -> list[int]:
    return [item.first for item in scan(data, EPOCH, reached, limit) if isinstance(item, Found)]


def gaps(data: bytes, *, limit: int = NO_LIMIT) -> list[DamagedRange]:
    return [item for item in scan(data, EPOCH, 0, limit) if isinstance(item, DamagedRange)]


def segment_of(records: int) -> Segment:
    segment = Segment(EPOCH, 1, EPOCH)
    segment.extend(records, 0)
    return segment


def own(epoch: int, first_offset: int) -> Segment:
    return Segment(epoch, first_offset, epoch)


def test_a_name_gives_its_segment_back_and_sorts_like_its_offset():
    segments = [Segment(EPOCH, 1, 7), own(EPOCH, 999), own(EPOCH, 1000)]
    assert [segment_named(segment.name) for segment in segments] == segments
    assert sorted(segment.name for segment in segments) == [segment.name for segment in segments]


def test_foreign_files_are_no_segments_and_have_no_epoch():
    for name in ("1-1-1.seg", "notes.txt", f"{EPOCH:020}.seg", own(EPOCH, 1).name + ".bak"):
        assert segment_named(name) is None
        assert epoch_named(name) is None


def test_every_file_of_a_journal_tells_its_owner():
    for name in (Segment(EPOCH, 1, 7).name, f"{EPOCH:020}.cursor", f"{EPOCH:020}.floor"):
        assert epoch_named(name) == EPOCH


def test_segments_rule_up_to_the_next_one():
    first, second, third = Segment(2, 1, 1), Segment(2, 50, 1), own(2, 60)
    assert current_segments([third, first, second]) == [(first, 50), (second, 60), (third, NO_LIMIT)]


def test_what_a_predecessor_created_after_it_was_replaced_is_superseded():
    kept, ruling = Segment(3, 1, 1), own(3, 60)
    assert current_segments([kept, own(1, 40), own(2, 80), ruling]) == [(kept, 60), (ruling, NO_LIMIT)]


def test_a_segment_that_starts_no_lower_than_a_later_epoch_is_superseded():
    ruling = own(3, 51)
    assert current_segments([Segment(3, 51, 2), ruling]) == [(ruling, NO_LIMIT)]


def test_a_takeover_that_was_cut_short_leaves_all_segments_in_force():
    renamed, still_old, stale = Segment(3, 1, 1), own(2, 50), own(1, 40)
    assert current_segments([renamed, still_old, stale]) == [(renamed, 50), (still_old, NO_LIMIT)]


def test_records_from_the_limit_on_are_ignored_and_so_is_a_torn_one_there():
    data = b"".join(map(record, range(1, 6)))
    assert offsets(data, limit=4) == [1, 2, 3]
    assert not gaps(data[:-1], limit=5)


def test_a_record_beyond_the_limit_ends_the_scan_even_where_offsets_are_unused():
    assert offsets(record(1) + record(7), limit=5) == [1]
    assert not gaps(record(1) + record(7), limit=5)


def test_a_superseded_record_does_not_end_a_gap():
    data = record(1) + b"\xff" * 10 + record(7)
    assert gaps(data, limit=5) == [DamagedRange(len(record(1)), len(data), "length is absurd", None)]


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6), st.data())
def test_a_cut_leaves_the_records_before_it(payloads: list[bytes], data: st.DataObject):
    records = [record(offset, payload) for offset, payload in enumerate(payloads, 1)]
    whole = b"".join(records)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [len(b"".join(records[:count])) for count in range(len(records) + 1)]
    kept = max(count for count, end in enumerate(ends) if end <= cut)
    assert offsets(whole[:cut]) == list(range(1, kept + 1))
    lost = cut - ends[kept]
    assert [(gap.start, gap.end, gap.reason) for gap in gaps(whole[:cut])] == (
        [(ends[kept], cut, "torn")] if lost else []
    )


def test_any_flipped_bit_costs_the_record_that_it_is_in_and_nothing_else():
    records = [record(1), record(2, b'{"price":"1.5"}'), record(3), record(4, b"")]
    whole = b"".join(records)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        hit = next(n for n in range(1, 5) if bit // 8 < len(b"".join(records[:n])))
        start = len(b"".join(records[: hit - 1]))
        assert offsets(bytes(damaged)) == [n for n in range(1, 5) if n != hit]
        (gap,) = gaps(bytes(damaged))
        assert (gap.start, gap.end) == (start, start + len(records[hit - 1]))
        assert gap.next_offset == (hit + 1 if hit < 4 else None)


def test_zeros_in_the_middle_are_one_gap_with_an_absurd_length():
    data = record(1) + bytes(5000) + record(4)
    assert gaps(data) == [DamagedRange(len(record(1)), len(record(1)) + 5000, "length is absurd", 4)]


def test_a_record_whose_offset_falls_back_is_damage():
    data = record(5) + record(5) + record(6)
    assert offsets(data) == [5, 6]
    assert gaps(data) == [DamagedRange(len(record(5)), 2 * len(record(5)), "offset does not rise", 6)]


def test_damage_counts_the_offsets_between_its_neighbours():
    gap = DamagedRange(100, 180, "torn", 9)
    assert damage_of(gap, own(1, 1), 1000, 5, NO_LIMIT) == Damage(
        own(1, 1).name, 1100, "torn", 80, records_lost=3
    )


def test_damage_at_the_end_counts_up_to_the_next_segment():
    assert damage_of(DamagedRange(0, 80, "torn", None), own(1, 1), 0, 5, 9).records_lost == 3


def test_damage_at_the_end_of_the_newest_segment_has_no_count():
    assert damage_of(DamagedRange(0, 80, "torn", None), own(1, 1), 0, 5, NO_LIMIT).records_lost is None


def test_damage_to_acknowledged_records_loses_none():
    assert damage_of(DamagedRange(0, 80, "torn", 4), own(1, 1), 0, 20, NO_LIMIT).records_lost == 0


def test_taking_stops_at_the_byte_limit_but_never_before_the_first_record():
    records = [record(offset) for offset in range(1, 5)]
    data = b"".join(records)
    size = len(records[0])
    assert read_batches(data, segment_of(4), 0, 0, 1).batches == records[:1]
    assert read_batches(data, segment_of(4), 0, 0, 2 * size).batches == records[:2]
    assert read_batches(data, segment_of(4), 0, 2, 10 * size).batches == records[2:]


def test_taking_reports_how_far_it_came_and_the_damage_that_stopped_it():
    data = record(1) + record(2) + b"\xff" * 10 + record(4)
    taken = read_batches(data, segment_of(4), 0, 1, 1000)
    assert (taken.batches, taken.reached, taken.used) == ([record(2)], 2, 2 * len(record(1)))
    assert taken.damage == DamagedRange(taken.used, taken.used + 10, "length is absurd", 4)


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=20), st.data())
def test_a_mark_lies_at_or_before_every_offset_that_it_is_asked_for(sizes: list[int], data: st.DataObject):
    segment, ends = own(EPOCH, 1), [0]
    for offset, size in enumerate(sizes, 1):
        ends.append(ends[-1] + size)
        segment.extend(offset, ends[-1])
    wanted = data.draw(st.integers(0, len(sizes)))
    reached, at = segment.mark_before(wanted)
    assert reached <= wanted
    assert at == ends[reached]
    assert ends[wanted] - at < 64 * 1024 + max(sizes)
