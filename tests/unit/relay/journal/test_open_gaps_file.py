"""Holes that outlive the incarnation that found them."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.journal.open_gaps_file import FILE_NAME, OpenGapsFile
from relay.model.gap import Gap, LossCause

HOLE = Gap(
    first_id=8, last_id=10, cause=LossCause.DISCONNECT, from_ns=5, to_ns=7, sample=b'{"s":"\xe5\xb8\x81"}'
)


def test_the_next_incarnation_finds_them(tmp_path: Path) -> None:
    OpenGapsFile(tmp_path, 1).save([HOLE])
    assert OpenGapsFile(tmp_path, 2).load() == [HOLE]


def test_an_older_incarnation_that_wakes_up_spoils_nothing(tmp_path: Path) -> None:
    OpenGapsFile(tmp_path, 2).save([HOLE])
    OpenGapsFile(tmp_path, 1).save([])
    assert OpenGapsFile(tmp_path, 3).load() == [HOLE]


def test_without_a_hole_there_is_no_file(tmp_path: Path) -> None:
    OpenGapsFile(tmp_path, 1).save([])
    assert list(tmp_path.iterdir()) == []
    OpenGapsFile(tmp_path, 1).save([HOLE])
    OpenGapsFile(tmp_path, 1).save([])
    assert OpenGapsFile(tmp_path, 2).load() == []


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"epoch":1,"holes":[{"first_id":1}]}', b"\xff\xfe"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(damaged)
    assert OpenGapsFile(tmp_path, 1).load() == []
    OpenGapsFile(tmp_path, 1).save([HOLE])
    assert OpenGapsFile(tmp_path, 2).load() == [HOLE]
