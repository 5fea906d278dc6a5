"""A standby instance's memory over its file: everything from a place on, in order, though more comes
meanwhile."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from actors.standby.replay_memory import CHUNK_ENTRIES, ReplayMemory
from relay.config import StreamSettings, parse_config
from relay.model.position import StoredPosition, digest_of
from relay.standby.peer_status import PeerStatus
from relay.standby.replay_buffer import DISCONTINUITY, JoinQuality, ReplayPoint
from tests.support.payloads import BOOKS, MS, TRADES, payload

both_kinds = pytest.mark.parametrize("name", [TRADES, BOOKS])


def settings(name: str, directory: Path, *, journal: bool = True) -> StreamSettings:
    text = f"""
queue: {{max_messages: 100, overflow: auto}}
journal: {{directory: {directory}, enabled: {str(journal).lower()}}}
shards: [{name}]
"""
    return parse_config(text, {}).streams[0]


def memory(name: str, directory: Path, **more: bool) -> ReplayMemory:
    return ReplayMemory(settings(name, directory, **more), directory / "one.spool")


def point(name: str, number: int) -> StoredPosition:
    event_id = number if name == TRADES else -1
    return StoredPosition(7, number, event_id, number * MS, digest_of(payload(name, number)))


def read(one: ReplayMemory, name: str, first: int, last: int) -> None:
    for number in range(first, last + 1):
        one.append([payload(name, number)], number * MS)


async def recalled(one: ReplayMemory, found: ReplayPoint) -> list[int]:
    numbers = []
    async for entries in one.replay(found.entry_index):
        numbers += [entry.recv_ns // MS for entry in entries]
    return numbers


@both_kinds
@pytest.mark.parametrize("count", [50, 3 * CHUNK_ENTRIES])
@pytest.mark.parametrize("stored", [0, 1, 37, 49])
def test_everything_behind_the_stored_event_is_recalled(
    tmp_path: Path, name: str, count: int, stored: int
) -> None:
    one = memory(name, tmp_path)
    read(one, name, 1, count)

    async def play() -> None:
        found = await one.replay_point_after(point(name, stored))
        assert found is not None and found.quality is JoinQuality.EXACT
        assert await recalled(one, found) == list(range(stored + 1, count + 1))

    asyncio.run(play())
    assert list(tmp_path.iterdir()) == []


@both_kinds
def test_what_comes_while_it_is_recalled_comes_behind_it(tmp_path: Path, name: str) -> None:
    one = memory(name, tmp_path)
    read(one, name, 1, 1000)

    async def play() -> None:
        numbers, last = [], 1000
        async for entries in one.replay(0):
            numbers += [entry.recv_ns // MS for entry in entries]
            if last < 2000:
                read(one, name, last + 1, last + 250)
                last += 250
        assert numbers == list(range(1, 2001))

    asyncio.run(play())


def test_an_event_that_nobody_remembers_is_waited_for_and_placed_by_time_in_the_end(tmp_path: Path) -> None:
    one = memory(BOOKS, tmp_path)
    read(one, BOOKS, 1, 300)
    absent = StoredPosition(7, 5, -1, 250 * MS, 1)

    async def play() -> None:
        assert await one.replay_point_after(absent) is None
        found = await one.replay_point_by_time(absent)
        assert found == ReplayPoint(250, JoinQuality.BY_TIME)
        assert await recalled(one, found) == list(range(251, 301))

    asyncio.run(play())


def test_ids_say_where_to_go_on_though_the_event_is_not_there(tmp_path: Path) -> None:
    one = memory(TRADES, tmp_path)
    read(one, TRADES, 51, 300)
    found = asyncio.run(one.replay_point_after(point(TRADES, 40)))
    assert found == ReplayPoint(0, JoinQuality.BY_ID)


def test_the_file_is_cut_once_the_active_instance_has_caught_up(tmp_path: Path) -> None:
    one = memory(TRADES, tmp_path)
    read(one, TRADES, 1, 1000)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size > 0
    one.forget_stored(PeerStatus(1, active=True, unacknowledged=900, stored=point(TRADES, 100)), reading=True)
    assert (one.count, file.stat().st_size > 0) == (1000, True)
    one.forget_stored(PeerStatus(1, active=True, unacknowledged=5, stored=point(TRADES, 995)), reading=True)
    assert (one.count, file.stat().st_size) == (6, 0)


def test_without_a_journal_it_reaches_back_as_far_as_memory_does(tmp_path: Path) -> None:
    one = memory(TRADES, tmp_path, journal=False)
    read(one, TRADES, 1, 50)
    one.forget_stored(PeerStatus(1, active=True, unacknowledged=40, stored=point(TRADES, 10)), reading=True)
    assert one.covers
    read(one, TRADES, 51, 150)
    assert not one.covers
    assert one.count <= 101
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_costs_what_was_to_be_kept_there_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    one = ReplayMemory(settings(TRADES, tmp_path), tmp_path / "file" / "one.spool")
    read(one, TRADES, 1, 150)
    assert not one.covers
    assert one.count <= 101
    assert "does not remember" in caplog.text


def test_what_cannot_be_read_back_is_a_break_and_the_rest_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = memory(TRADES, tmp_path)
    read(one, TRADES, 1, 150)

    def refuse(fd: int, size: int, at: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", refuse)

    async def play() -> None:
        names: list[int] = []
        async for entries in one.replay(0):
            names += [entry.name for entry in entries]
        assert names[0] == DISCONTINUITY
        assert names[1:] == list(range(names[1], 151))

    asyncio.run(play())
    assert "is lost" in caplog.text
