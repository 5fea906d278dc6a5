"""The file of what a standby instance remembers beyond its memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import JournalError
from relay.standby.replay_buffer import DISCONTINUITY, REJECTED, Entry
from relay.standby.spill_file import SpillFile

ENTRIES = [
    Entry(5, b"five", 50),
    Entry(DISCONTINUITY, b"", 50),
    Entry(REJECTED, b"x" * 5_000, 60),
    Entry(2**63 - 1, b"last", 70),
]


def read_all(spill_file: SpillFile, max_bytes: int = 64) -> list[Entry]:
    found: list[Entry] = []
    at = 0
    while at < spill_file.bytes:
        entries, at = spill_file.read(at, max_bytes)
        found += entries
    return found


@pytest.mark.parametrize("max_bytes", [1, 64, 1 << 20])
def test_what_was_appended_is_read_back(tmp_path: Path, max_bytes: int) -> None:
    spill_file = SpillFile(tmp_path / "a" / "one.spool", 1 << 20)
    assert read_all(spill_file) == []
    spill_file.append(ENTRIES[:1])
    spill_file.append(ENTRIES[1:])
    assert read_all(spill_file, max_bytes) == ENTRIES
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3_000), max_size=30), st.integers(1, 5_000))
def test_however_it_is_cut_nothing_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], chunk: int
) -> None:
    spill_file = SpillFile(tmp_path_factory.mktemp("spool") / "one.spool", 1 << 20)
    entries = [Entry(at, bytes(size), at) for at, size in enumerate(sizes)]
    if entries:
        spill_file.append(entries)
    assert read_all(spill_file, chunk) == entries
    spill_file.close()


def test_cleared_it_begins_anew(tmp_path: Path) -> None:
    spill_file = SpillFile(tmp_path / "one.spool", 1 << 20)
    spill_file.append(ENTRIES)
    spill_file.clear()
    spill_file.append(ENTRIES[:1])
    assert read_all(spill_file) == ENTRIES[:1]
    assert (tmp_path / "one.spool").stat().st_size == spill_file.bytes


def test_it_takes_no_more_than_it_may(tmp_path: Path) -> None:
    spill_file = SpillFile(tmp_path / "one.spool", 300)
    spill_file.append(ENTRIES[:2])
    with pytest.raises(JournalError, match=r"journal\.max_bytes"):
        spill_file.append(ENTRIES)
    assert read_all(spill_file) == ENTRIES[:2]


def test_what_a_dead_instance_left_is_removed_and_a_stopped_one_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "one.spool"
    stopped = SpillFile(path, 1 << 20)
    stopped.append(ENTRIES)
    spill_file = SpillFile(path, 1 << 20)
    assert not path.exists()
    spill_file.append(ENTRIES[:1])
    stopped.append(ENTRIES)
    assert read_all(spill_file) == ENTRIES[:1]
    assert read_all(stopped) == [*ENTRIES, *ENTRIES]


def test_closed_it_is_gone(tmp_path: Path) -> None:
    spill_file = SpillFile(tmp_path / "one.spool", 1 << 20)
    spill_file.append(ENTRIES)
    spill_file.close()
    spill_file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spill_file = SpillFile(tmp_path / "file" / "one.spool", 1 << 20)
    with pytest.raises(JournalError, match="check the disk"):
        spill_file.append(ENTRIES)
