from __future__ import annotations

import pytest

from relay.primitives.text import (
    age,
    clip,
    count,
    millis,
    quoted,
    rate,
    utc,
    utc_time_of_day,
    utc_to_the_second,
)

MOMENT_NS = 1_767_225_661_234_567_890


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (count(999_999), "999,999"),
        (count(12_345_678), "12.35M"),
        (count(12_345_678_901), "12.35G"),
        (rate(9.96), "10.0"),
        (rate(1234.6), "1,235"),
        (millis(None), "-"),
        (millis(0.844), "0.84"),
        (millis(43.21), "43.2"),
        (millis(4321.0), "4,321"),
        (age(0.04), "0.0 s"),
        (age(600), "10 min"),
        (clip("abcdef", 4), "abc…"),
        (utc(MOMENT_NS), "2026-01-01T00:01:01.234Z"),
        (utc_to_the_second(MOMENT_NS), "2026-01-01 00:01:01Z"),
        (utc_time_of_day(MOMENT_NS), "00:01:01.234Z"),
    ],
)
def test_figures_and_times_are_short(shown: str, expected: str) -> None:
    assert shown == expected


def test_control_codes_of_other_machines_are_not_printed() -> None:
    assert clip("a\x1b[2Jb\nc", 20) == "a [2Jb c"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (False, "false"), (5, "5"), ("a", "'a'"), ("a\n", r"'a\n'")],
)
def test_a_value_is_quoted_as_yaml_spells_it(value: object, text: str) -> None:
    assert quoted(value) == text


def test_what_is_quoted_fits_a_line() -> None:
    assert quoted("x" * 1_000_000) == "'" + "x" * 79 + "…"
