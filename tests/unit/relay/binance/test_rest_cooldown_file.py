"""The exchange's wish to be left alone, as all streams of a node know it."""

from __future__ import annotations

from pathlib import Path

from relay.binance.rest_cooldown_file import MAX_S, RestCooldownFile

URL = "https://fapi.binance.com"


def test_all_streams_of_a_node_hear_of_it_and_the_longest_holds(tmp_path: Path) -> None:
    one, other = RestCooldownFile(tmp_path, URL), RestCooldownFile(tmp_path, URL)
    assert other.remaining_s(1000.0) == 0.0
    one.extend(60.0, 1000.0)
    other.extend(7.0, 1010.0)
    assert one.remaining_s(1010.0) == other.remaining_s(1010.0) == 50.0
    assert one.remaining_s(1060.0) == 0.0


def test_another_exchange_is_another_matter(tmp_path: Path) -> None:
    RestCooldownFile(tmp_path, URL).extend(60.0, 1000.0)
    assert RestCooldownFile(tmp_path, "https://api.binance.com").remaining_s(1000.0) == 0.0


def test_a_number_that_cannot_be_is_none(tmp_path: Path) -> None:
    one = RestCooldownFile(tmp_path, URL)
    one.extend(60.0, 1000.0 + 2 * MAX_S)
    assert one.remaining_s(1000.0) == 0.0
    (path,) = tmp_path.iterdir()
    path.write_text("soon")
    assert one.remaining_s(1000.0) == 0.0


def test_the_word_of_another_start_of_the_machine_is_none(tmp_path: Path) -> None:
    RestCooldownFile(tmp_path, URL).extend(60.0, 1000.0)
    boot = tmp_path / "boot_id"
    boot.write_text("another\n")
    assert RestCooldownFile(tmp_path, URL, boot).remaining_s(1000.0) == 0.0
    one = RestCooldownFile(tmp_path, URL, tmp_path / "none")
    one.extend(60.0, 1000.0)
    assert one.remaining_s(1010.0) == 50.0
