"""The exchange's wish to be left alone, as all streams of a node know it."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.binance import rest_cooldown_file
from relay.binance.rest_cooldown_file import MAX_S, StayAway

URL = "https://fapi.binance.com"


def test_all_streams_of_a_node_hear_of_it_and_the_longest_holds(tmp_path: Path) -> None:
    one, other = StayAway(tmp_path, URL), StayAway(tmp_path, URL)
    assert other.left_s(1000.0) == 0.0
    one.prolong(60.0, 1000.0)
    other.prolong(7.0, 1010.0)
    assert one.left_s(1010.0) == other.left_s(1010.0) == 50.0
    assert one.left_s(1060.0) == 0.0


def test_another_exchange_is_another_matter(tmp_path: Path) -> None:
    StayAway(tmp_path, URL).prolong(60.0, 1000.0)
    assert StayAway(tmp_path, "https://api.binance.com").left_s(1000.0) == 0.0


def test_a_number_that_cannot_be_is_none(tmp_path: Path) -> None:
    one = StayAway(tmp_path, URL)
    one.prolong(60.0, 1000.0 + 2 * MAX_S)
    assert one.left_s(1000.0) == 0.0
    (path,) = tmp_path.iterdir()
    path.write_text("soon")
    assert one.left_s(1000.0) == 0.0


def test_the_word_of_another_start_of_the_machine_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    StayAway(tmp_path, URL).prolong(60.0, 1000.0)
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    monkeypatch.setattr(rest_cooldown_file, "_BOOT", boot)
    assert StayAway(tmp_path, URL).left_s(1000.0) == 0.0
    monkeypatch.setattr(rest_cooldown_file, "_BOOT", tmp_path / "none")
    one = StayAway(tmp_path, URL)
    one.prolong(60.0, 1000.0)
    assert one.left_s(1010.0) == 50.0
