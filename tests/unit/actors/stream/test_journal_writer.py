"""What is accepted while the disk refuses to write waits in memory and is written in order."""

from __future__ import annotations

from typing import cast

import pytest

from actors.stream.journal_writer import JOURNAL_RESERVE_BYTES, JournalWriter
from relay.errors import JournalError
from relay.journal.journal import Journal

FULL_BYTES = 2 * JOURNAL_RESERVE_BYTES


class FakeJournal:
    def __init__(self) -> None:
        self.max_bytes = FULL_BYTES
        self.used_bytes = 0
        self.fails = False
        self.closed = False
        self.appended: list[tuple[bytes, int]] = []

    def append(self, encoded: bytes, last_offset: int) -> None:
        if self.fails:
            raise JournalError("the journal cannot be written")
        self.appended.append((encoded, last_offset))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def journal() -> FakeJournal:
    return FakeJournal()


@pytest.fixture
def stalls() -> list[bool]:
    return []


@pytest.fixture
def writer(journal: FakeJournal, stalls: list[bool]) -> JournalWriter:
    return JournalWriter(cast(Journal, journal), "usdm:btcusdt@trade", stalls.append)


def test_what_a_failed_write_left_is_written_at_once_and_in_order(
    writer: JournalWriter, journal: FakeJournal, stalls: list[bool]
) -> None:
    writer.write(b"a", 1)
    journal.fails = True
    writer.write(b"b", 2)
    writer.retry()
    journal.fails = False
    writer.write(b"c", 3)
    assert (writer.has_unwritten, journal.appended, stalls) == (True, [(b"a", 1)], [True])
    writer.retry()
    assert (writer.has_unwritten, journal.appended, stalls) == (False, [(b"a", 1), (b"bc", 3)], [True, False])


def test_a_failed_write_is_a_problem_until_it_succeeds(writer: JournalWriter, journal: FakeJournal) -> None:
    journal.fails = True
    writer.write(b"a", 1)
    assert writer.problem == (
        "the journal cannot be written; usdm:btcusdt@trade reads nothing until it can be written"
    )
    journal.fails = False
    writer.retry()
    assert (writer.problem, writer.error) == ("", "")


def test_reading_stops_before_the_journal_is_full(writer: JournalWriter, journal: FakeJournal) -> None:
    journal.used_bytes = FULL_BYTES - JOURNAL_RESERVE_BYTES
    assert not writer.is_short_of_room
    journal.used_bytes += 1
    assert writer.is_short_of_room
    assert writer.problem == (
        "the journal of usdm:btcusdt@trade is full; it reads nothing until NATS takes events"
    )


def test_closing_writes_what_still_waits(writer: JournalWriter, journal: FakeJournal) -> None:
    journal.fails = True
    writer.write(b"a", 1)
    journal.fails = False
    writer.close()
    assert (journal.appended, journal.closed) == ([(b"a", 1)], True)
