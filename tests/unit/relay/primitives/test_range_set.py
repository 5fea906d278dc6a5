"""Sets of ids as ranges, against plain sets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.primitives.range_set import RangeSet

numbers = st.integers(0, 40)
steps = st.lists(st.tuples(st.sampled_from(["add", "remove"]), numbers, st.integers(-2, 8)), max_size=30)


def built(changes: list[tuple[str, int, int]]) -> tuple[RangeSet, set[int]]:
    ranges, plain = RangeSet(), set[int]()
    for change, first, length in changes:
        last = first + length
        if change == "add":
            ranges.add(first, last)
            plain |= set(range(first, last + 1))
        else:
            ranges.remove(first, last)
            plain -= set(range(first, last + 1))
    return ranges, plain


@given(steps)
def test_it_holds_what_a_plain_set_holds(changes: list[tuple[str, int, int]]) -> None:
    ranges, plain = built(changes)
    assert {each for first, last in ranges for each in range(first, last + 1)} == plain
    assert len(ranges) == len(plain)
    assert all((each in ranges) == (each in plain) for each in range(-3, 52))


@given(steps)
def test_ranges_rise_and_never_touch(changes: list[tuple[str, int, int]]) -> None:
    ranges = list(built(changes)[0])
    assert all(first <= last for first, last in ranges)
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(ranges))


@given(steps, steps)
def test_what_two_have_in_common(one: list[tuple[str, int, int]], other: list[tuple[str, int, int]]) -> None:
    (left, left_plain), (right, right_plain) = built(one), built(other)
    common = left.common(right)
    assert {each for first, last in common for each in range(first, last + 1)} == left_plain & right_plain
    assert common == right.common(left)
