"""Sizes, durations, numbers, paths and secrets, as they are written and as they come out."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.config.values import (
    parse_absolute_path,
    parse_cores,
    parse_count,
    parse_duration,
    parse_node_label,
    parse_silence_limit,
    parse_size,
)
from relay.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        (1, 1),
        ("1", 1),
        ("512B", 512),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("16MiB", 16 * 2**20),
        ("16 mib", 16 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("2GB", 2 * 10**9),
    ],
)
def test_sizes_take_decimal_and_binary_units(written: object, size_bytes: int) -> None:
    assert parse_size(written) == size_bytes


@pytest.mark.parametrize(
    "written",
    [0, -1, "0", "-1B", "1TB", "1M", "1.0001B", 1.5, True, None, [], "", "MiB", "1e3", "9" * 400, 2**51],
)
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size(written)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (5, 5),
        (0.5, 0.5),
        ("5", 5),
        ("250ms", 0.25),
        ("120s", 120),
        ("10m", 600),
        ("24h", 86400),
        ("1.5 d", 129600),
    ],
)
def test_durations_are_seconds_or_take_a_unit(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written", [0, -1, "0s", math.inf, math.nan, "1w", "1h30m", True, None, "9" * 15 + "d"]
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ConfigError):
        parse_duration(written)


def test_a_silence_limit_may_be_unset_or_off() -> None:
    assert [parse_silence_limit(value) for value in (None, False, "off", 0, "30s")] == [None, 0, 0, 0, 30]


@pytest.mark.parametrize("written", [0, -3, True, 1.0, "1.0", "x", None, 10**10, "٣"])
def test_what_is_no_count_is_refused(written: object) -> None:
    with pytest.raises(ConfigError):
        parse_count(written)


@pytest.mark.parametrize("written", [-0.1, math.nan, "many", True, None, 1025])
def test_what_is_no_number_of_cores_is_refused(written: object) -> None:
    with pytest.raises(ConfigError):
        parse_cores(written)


@pytest.mark.parametrize("written", ["-a", "a b", "a=b", "!a", "in(a)", "a" * 64, 5, True])
def test_what_ray_takes_for_no_label_is_refused(written: object) -> None:
    with pytest.raises(ConfigError):
        parse_node_label(written)


@pytest.mark.parametrize("written", ["", "a", "~/a", "/a/../b", "/a\x00b", "/a\nb", 5, None])
def test_a_path_that_is_not_a_full_one_is_refused(written: object) -> None:
    with pytest.raises(ConfigError):
        parse_absolute_path(written)


def test_a_full_path_is_kept() -> None:
    assert parse_absolute_path("/var/lib/sluice") == Path("/var/lib/sluice")


MEASURES = st.from_regex(r"\d+(\.\d+)?[a-zA-Z]*")
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | MEASURES


@settings(deadline=None)
@given(ANYTHING)
def test_any_value_is_a_positive_measure_or_is_refused(written: object) -> None:
    for parse in (parse_size, parse_duration, parse_count):
        try:
            assert 0 < parse(written) < math.inf
        except ConfigError as error:
            assert error.problem and error.remedy
