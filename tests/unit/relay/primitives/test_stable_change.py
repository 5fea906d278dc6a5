"""When a changed file counts."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.primitives.stable_change import StableChangeDetector


def acted_on(known: object, *contents: object) -> list[object]:
    file = StableChangeDetector(known)
    return [content for content in contents if file.observe(content)]


def test_an_unchanged_file_never_counts():
    assert acted_on("a", "a", "a", "a") == []


def test_a_change_counts_once_when_it_has_stayed_for_a_look():
    assert acted_on("a", "b", "b", "b", "b") == ["b"]


def test_a_file_in_the_middle_of_being_written_does_not_count():
    assert acted_on("a", "b1", "b12", "b123", "b123") == ["b123"]


def test_a_change_that_is_taken_back_at_once_does_not_count():
    assert acted_on("a", "b", "a", "a") == []


def test_a_missing_file_counts_as_well_so_that_it_is_reported():
    assert acted_on("a", None, None, "a", "a") == [None, "a"]


def test_what_could_not_be_acted_on_counts_again():
    file = StableChangeDetector("a")
    assert [file.observe("b"), file.observe("b")] == [False, True]
    file.forget()
    assert [file.observe("b"), file.observe("b")] == [True, False]


@given(st.lists(st.sampled_from("abc")))
def test_the_last_content_that_stayed_is_always_the_last_acted_on(contents):
    acted = acted_on("a", *contents, "d", "d")
    assert acted[-1] == "d"
    assert all(before != after for before, after in pairwise(acted))
