import errno
import json
import os
import signal
import subprocess
import sys
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay.errors import JournalError
from relay.journal.journal import ROLL_BYTES, Journal
from relay.model.record_batch import EVENT_KINDS, NO_EVENT_ID, RecordBatch, RecordKind
from tests.support.records import decode, encode

MIB = 1024 * 1024
# Fits all that follow on the command line; the parent reads what it prints.
CHILD = """
import sys
from pathlib import Path
from relay.errors import JournalError
from relay.journal.journal import Journal
from tests.support.records import encode

def record(offset, size=100):
    return encode(0, offset, 1, offset, 0, -1, bytes(size))

journal = Journal(Path(sys.argv[1]), epoch=1, max_bytes=1 << 23)
"""


def record(offset: int, epoch: int = 1, payload: bytes = b"{}", kind: RecordKind = RecordKind.EVENT) -> bytes:
    return encode(kind, offset, epoch, offset, 0, -1, payload)


def open_journal(directory: Path, epoch: int = 1, max_bytes: int = MIB, segment_bytes: int = MIB) -> Journal:
    return Journal(directory, epoch=epoch, max_bytes=max_bytes, segment_bytes=segment_bytes)


def fill(journal: Journal, count: int, payload: bytes = b"{}") -> list[bytes]:
    first = journal.last_offset + 1
    records = [record(offset, journal.epoch, payload) for offset in range(first, first + count)]
    for offset, encoded in enumerate(records, first):
        journal.append(encoded, offset)
    return records


def read_all(journal: Journal, after: int = 0, max_bytes: int = 1000) -> list[bytes]:
    found: list[bytes] = []
    while records := journal.read_after(after, max_bytes):
        found += records
        after = offset_of(records[-1])
    return found


def offset_of(encoded: bytes) -> int:
    return decode(encoded, 0, check=True)[0].offset


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def child(tmp_path: Path, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )


def test_a_new_journal_is_empty_and_has_room(tmp_path: Path):
    journal = open_journal(tmp_path / "journal")
    assert journal.read_after(0, 1000) == []
    assert (journal.used_bytes, journal.room_bytes, journal.last_offset) == (0, MIB, 0)
    recovery = journal.recovery
    assert (recovery.last_epoch, recovery.last_offset, recovery.events, recovery.damages) == (0, 0, 0, ())


def test_records_come_back_in_order_across_segments(tmp_path: Path):
    journal = open_journal(tmp_path, segment_bytes=500)
    records = fill(journal, 100)
    assert len(segments(tmp_path)) > 5
    assert read_all(journal) == records
    assert read_all(journal, after=63) == records[63:]


def test_one_append_may_carry_many_records(tmp_path: Path):
    journal = open_journal(tmp_path)
    records = [record(offset) for offset in range(1, 51)]
    journal.append(b"".join(records), 50)
    assert read_all(journal) == records


def test_reading_finds_what_is_appended_after_the_end_was_reached(tmp_path: Path):
    journal = open_journal(tmp_path)
    fill(journal, 3)
    assert len(journal.read_after(0, 1000)) == 3
    assert journal.read_after(3, 1000) == []
    later = fill(journal, 2)
    assert journal.read_after(3, 1000) == later


def test_reading_gives_one_record_however_small_the_limit(tmp_path: Path):
    journal = open_journal(tmp_path)
    records = fill(journal, 3)
    assert journal.read_after(1, 0) == records[1:2]


def test_a_record_longer_than_a_chunk_is_read_whole(tmp_path: Path):
    journal = open_journal(tmp_path)
    records = fill(journal, 2, payload=bytes(100_000))
    assert read_all(journal) == records


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30))
@settings(max_examples=20)
def test_any_place_is_found_again_in_a_long_segment(wanted: list[int]):
    with TemporaryDirectory() as directory:
        journal = open_journal(Path(directory), max_bytes=4 * MIB)
        records = [record(offset) for offset in range(1, 3001)]
        for start in range(0, 3000, 50):
            journal.append(b"".join(records[start : start + 50]), start + 50)
        assert [journal.read_after(offset, 1) for offset in wanted] == [
            records[offset : offset + 1] for offset in wanted
        ]
        journal.close()


def test_acknowledged_records_are_not_read_again(tmp_path: Path):
    journal = open_journal(tmp_path)
    records = fill(journal, 10)
    journal.acknowledge(7)
    assert read_all(journal) == records[7:]


def test_acknowledgements_are_cumulative_and_never_fall(tmp_path: Path):
    journal = open_journal(tmp_path)
    fill(journal, 10)
    journal.acknowledge(4)
    journal.acknowledge(2)
    assert journal.acknowledged == 4
    assert open_journal(tmp_path, epoch=2).acknowledged == 4


def test_an_acknowledgement_of_what_is_not_there_yet_covers_nothing_later(tmp_path: Path):
    journal = open_journal(tmp_path)
    fill(journal, 3)
    journal.acknowledge(100)
    later = fill(journal, 2)
    assert read_all(journal) == later


def test_segments_behind_the_acknowledgement_are_removed(tmp_path: Path):
    journal = open_journal(tmp_path, segment_bytes=500)
    fill(journal, 100)
    journal.acknowledge(99)
    assert len(segments(tmp_path)) == 1
    assert journal.used_bytes == segments(tmp_path)[0].stat().st_size


def test_an_emptied_journal_uses_almost_no_disk(tmp_path: Path):
    journal = open_journal(tmp_path, max_bytes=16 * MIB, segment_bytes=4 * MIB)
    fill(journal, 30, payload=bytes(50_000))
    assert journal.used_bytes > ROLL_BYTES
    journal.acknowledge(30)
    assert journal.used_bytes == sum(path.stat().st_size for path in segments(tmp_path)) == 0
    later = fill(journal, 2)
    assert read_all(journal) == later


def test_renewing_segments_leaks_no_descriptors(tmp_path: Path):
    journal = open_journal(tmp_path, segment_bytes=200)
    before = len(list(Path("/proc/self/fd").iterdir()))
    fill(journal, 100)
    read_all(journal)
    journal.acknowledge(100)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_a_full_journal_refuses_and_keeps_what_it_has(tmp_path: Path):
    journal = open_journal(tmp_path, max_bytes=1000)
    encoded = record(1, payload=bytes(600))
    journal.append(encoded, 1)
    with pytest.raises(JournalError, match="full"):
        journal.append(record(2, payload=bytes(600)), 2)
    assert journal.room_bytes == 1000 - len(encoded)
    assert read_all(journal) == [encoded]


def test_a_segment_takes_at_most_a_quarter_of_the_journal(tmp_path: Path):
    journal = open_journal(tmp_path, max_bytes=4000, segment_bytes=MIB)
    fill(journal, 60)
    assert max(path.stat().st_size for path in segments(tmp_path)) <= 1000


def test_only_the_owner_may_read(tmp_path: Path):
    directory = tmp_path / "deep" / "journal"
    directory.mkdir(parents=True, mode=0o755)
    fill(open_journal(directory), 1)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be opened"):
        open_journal(tmp_path / "file")


def test_closing_twice_is_harmless_and_removes_nothing(tmp_path: Path):
    journal = open_journal(tmp_path)
    records = fill(journal, 3)
    journal.close()
    journal.close()
    assert read_all(open_journal(tmp_path, epoch=2)) == records


def test_the_next_incarnation_goes_on_where_the_last_one_ended(tmp_path: Path):
    records = fill(open_journal(tmp_path, epoch=5), 10)
    journal = open_journal(tmp_path, epoch=6)
    recovery = journal.recovery
    assert (recovery.last_epoch, recovery.last_offset, recovery.last_seq) == (5, 10, 10)
    assert (recovery.events, recovery.records, recovery.bytes) == (10, 10, sum(map(len, records)))
    assert read_all(journal) == records
    assert fill(journal, 1) == [record(11, epoch=6)]
    assert read_all(journal)[-1] == record(11, epoch=6)


def test_recovery_counts_events_apart_from_side_records(tmp_path: Path):
    journal = open_journal(tmp_path)
    journal.append(
        record(1) + record(2, kind=RecordKind.LOSS) + record(3, kind=RecordKind.REJECTED) + record(4), 4
    )
    journal.acknowledge(1)
    recovery = open_journal(tmp_path, epoch=2).recovery
    assert (recovery.acknowledged_offset, recovery.events, recovery.records) == (1, 1, 3)


def test_recovery_names_the_last_event_whatever_comes_behind_it(tmp_path: Path):
    journal = open_journal(tmp_path)
    assert journal.recovery.last_event is None
    two = RecordBatch(RecordKind.EVENT, 1, 1, 1, 70, [7, 8], [b"{}", b"[]"]).encoded
    journal.append(two + record(3, kind=RecordKind.LOSS), 3)
    journal.acknowledge(3)
    last = open_journal(tmp_path, epoch=2).recovery.last_event
    assert last is not None
    assert (last.offset, last.seq, last.recv_ns) == (2, 2, 70)
    assert (list(last.event_ids), last.payloads) == ([8], [b"[]"])


def test_recovery_tells_the_last_event_that_has_an_id(tmp_path: Path):
    journal = open_journal(tmp_path)
    for offset, (recv_ns, event_id) in enumerate([(70, 7), (80, 8), (90, NO_EVENT_ID)], 1):
        journal.append(encode(RecordKind.EVENT, offset, 1, offset, recv_ns, event_id, b"{}"), offset)
        if event_id == 8:
            journal = open_journal(tmp_path, epoch=2)
    last = open_journal(tmp_path, epoch=3).recovery.last_numbered_event
    assert last is not None
    assert (list(last.event_ids), last.recv_ns) == ([8], 80)


def test_offsets_go_on_after_everything_was_acknowledged_and_removed(tmp_path: Path):
    journal = open_journal(tmp_path)
    fill(journal, 10)
    journal.acknowledge(10)
    assert open_journal(tmp_path, epoch=2).last_offset == 10
    assert open_journal(tmp_path, epoch=3).recovery.last_offset == 10


def test_offsets_stay_above_the_acknowledged_ones_when_the_files_are_damaged(tmp_path: Path):
    journal = open_journal(tmp_path)
    fill(journal, 10)
    journal.acknowledge(8)
    os.truncate(segments(tmp_path)[0], 1)
    assert open_journal(tmp_path, epoch=2).last_offset == 8


def test_a_cursor_that_a_kill_left_half_made_is_passed_over(tmp_path: Path):
    journal = open_journal(tmp_path)
    records = fill(journal, 5)
    journal.acknowledge(2)
    (tmp_path / f"{2:020}.cursor").write_bytes(b"")
    assert read_all(open_journal(tmp_path, epoch=3)) == records[2:]


def test_an_epoch_is_the_clock_or_above_every_earlier_one(tmp_path: Path):
    directory = tmp_path / "journal"
    assert Journal.next_epoch(directory, 1000) == 1000
    open_journal(directory, epoch=1000)
    assert Journal.next_epoch(directory, 900) == 1001
    assert Journal.next_epoch(directory, 5000) == 5000


def test_a_floor_lifts_the_next_epoch_and_holds_for_good(tmp_path: Path):
    open_journal(tmp_path, epoch=10)
    Journal.reserve_epochs_through(tmp_path, 70)
    assert Journal.next_epoch(tmp_path, 20) == 71
    open_journal(tmp_path, epoch=71).close()
    assert Journal.next_epoch(tmp_path, 20) == 72


@pytest.mark.parametrize("epoch", [4, 5])
def test_an_epoch_that_is_taken_is_refused(tmp_path: Path, epoch: int):
    open_journal(tmp_path, epoch=5)
    with pytest.raises(JournalError, match="epoch 5"):
        open_journal(tmp_path, epoch=epoch)


def test_a_woken_predecessor_changes_nothing_for_its_successor(tmp_path: Path):
    stale = open_journal(tmp_path, epoch=1, segment_bytes=300)
    records = fill(stale, 5)
    journal = open_journal(tmp_path, epoch=2)
    fill(stale, 20)
    records += fill(journal, 5)
    assert read_all(journal) == records
    assert read_all(open_journal(tmp_path, epoch=3)) == records


def test_what_a_predecessor_appends_before_its_successor_writes_is_superseded_too(tmp_path: Path):
    stale = open_journal(tmp_path, epoch=1)
    records = fill(stale, 5)
    open_journal(tmp_path, epoch=2)
    fill(stale, 5)
    assert read_all(open_journal(tmp_path, epoch=3)) == records


def test_a_replaced_incarnation_acknowledges_nothing_for_its_successor(tmp_path: Path):
    stale = open_journal(tmp_path, epoch=1, segment_bytes=300)
    records = fill(stale, 20)
    journal = open_journal(tmp_path, epoch=2)
    stale.acknowledge(20)
    assert read_all(journal) == records
    assert read_all(open_journal(tmp_path, epoch=3)) == records


def test_a_replaced_incarnation_learns_of_it_when_it_reads(tmp_path: Path):
    stale = open_journal(tmp_path, epoch=1)
    fill(stale, 3)
    open_journal(tmp_path, epoch=2)
    with pytest.raises(JournalError, match="cannot be read"):
        stale.read_after(0, 1000)


def test_a_takeover_that_was_killed_half_way_loses_nothing(tmp_path: Path):
    records = fill(open_journal(tmp_path, epoch=1, segment_bytes=300), 20)
    first = segments(tmp_path)[0]
    first.rename(tmp_path / f"{2:020}{first.name[20:]}")
    assert read_all(open_journal(tmp_path, epoch=3)) == records


sizes = st.lists(st.integers(0, 80), min_size=1, max_size=12)


def write_some(directory: Path, payload_sizes: list[int]) -> list[bytes]:
    journal = open_journal(directory, segment_bytes=400)
    records = [record(offset, payload=bytes(size)) for offset, size in enumerate(payload_sizes, 1)]
    for offset, encoded in enumerate(records, 1):
        journal.append(encoded, offset)
    journal.close()
    return records


@given(sizes, st.data())
@settings(deadline=None)
def test_a_cut_of_the_last_file_loses_only_what_is_behind_it(payload_sizes: list[int], data: st.DataObject):
    with TemporaryDirectory() as directory:
        records = write_some(Path(directory), payload_sizes)
        last = segments(Path(directory))[-1]
        cut = data.draw(st.integers(0, last.stat().st_size))
        os.truncate(last, cut)
        before = int(last.stem.split("-")[1]) - 1
        ends = list(accumulate(map(len, records[before:]), initial=0))
        whole = max(count for count, end in enumerate(ends) if end <= cut)
        journal = open_journal(Path(directory), epoch=2)
        assert read_all(journal) == records[: before + whole]
        assert [(each.at, each.lost_bytes) for each in journal.recovery.damages] == (
            [(ends[whole], cut - ends[whole])] if cut > ends[whole] else []
        )
        assert journal.last_offset == before + whole
        journal.close()


@given(sizes, st.data())
@settings(deadline=None)
def test_a_flipped_bit_loses_one_record_and_is_counted(payload_sizes: list[int], data: st.DataObject):
    with TemporaryDirectory() as directory:
        records = write_some(Path(directory), payload_sizes)
        path = data.draw(st.sampled_from(segments(Path(directory))))
        bit = data.draw(st.integers(0, 8 * path.stat().st_size - 1))
        flip(path, bit)
        before = int(path.stem.split("-")[1]) - 1
        ends = list(accumulate(map(len, records[before:])))
        hit = before + next(count for count, end in enumerate(ends) if bit // 8 < end)
        journal = open_journal(Path(directory), epoch=2)
        assert read_all(journal) == records[:hit] + records[hit + 1 :]
        (damage,) = journal.recovery.damages
        # The file has got a new owner, the first part of its name.
        assert (damage.segment[20:], damage.lost_bytes) == (path.name[20:], len(records[hit]))
        assert damage.records_lost == (None if hit == len(records) - 1 else 1)
        assert journal.recovery.events == len(records) - 1
        assert journal.damages == []
        journal.close()


@given(sizes, st.data())
@settings(deadline=None)
def test_damage_that_comes_while_it_runs_is_skipped_and_counted_once(
    payload_sizes: list[int], data: st.DataObject
):
    with TemporaryDirectory() as directory:
        records = write_some(Path(directory), payload_sizes)
        journal = open_journal(Path(directory), epoch=2)
        records += fill(journal, 2)
        path = data.draw(st.sampled_from(segments(Path(directory))[:-1]))
        flip(path, data.draw(st.integers(0, 8 * path.stat().st_size - 1)))
        found = read_all(journal)
        assert read_all(journal) == found
        (damage,) = journal.damages
        assert damage.records_lost == 1
        (lost,) = set(records) - set(found)
        assert [each for each in records if each != lost] == found
        assert damage.lost_bytes == len(lost)
        journal.close()


def test_damage_to_what_was_acknowledged_loses_nothing(tmp_path: Path):
    journal = open_journal(tmp_path)
    records = fill(journal, 5)
    journal.acknowledge(3)
    flip(segments(tmp_path)[0], 8 * len(records[0]))
    journal = open_journal(tmp_path, epoch=2)
    assert read_all(journal) == records[3:]
    assert [damage.records_lost for damage in journal.recovery.damages] == [0]


def test_a_file_cut_short_while_it_runs_is_damage(tmp_path: Path):
    fill(open_journal(tmp_path), 5)
    journal = open_journal(tmp_path, epoch=2)
    os.truncate(segments(tmp_path)[0], 3 * len(record(1)) + 1)
    later = fill(journal, 1)
    assert read_all(journal) == [record(1), record(2), record(3), *later]
    assert [(each.records_lost, each.lost_bytes) for each in journal.damages] == [(2, 2 * len(record(1)))]


def test_a_flipped_bit_in_the_cursor_passes_no_record_over(tmp_path: Path):
    for bit in range(192):
        directory = tmp_path / str(bit)
        journal = open_journal(directory)
        records = fill(journal, 6)
        journal.acknowledge(3)
        journal.close()
        flip(next(directory.glob("*.cursor")), bit)
        again = open_journal(directory, epoch=2)
        assert set(read_all(again)) >= set(records[3:])
        assert again.last_offset == 6
        again.close()


@pytest.mark.parametrize("garbage", [b"\xff" * 24, bytes(24), bytes(range(1, 25))])
def test_a_cursor_of_garbage_passes_no_record_over(tmp_path: Path, garbage: bytes):
    journal = open_journal(tmp_path)
    records = fill(journal, 6)
    journal.acknowledge(3)
    next(tmp_path.glob("*.cursor")).write_bytes(garbage)
    assert read_all(open_journal(tmp_path, epoch=2)) == records


def test_one_torn_copy_of_the_cursor_leaves_the_other(tmp_path: Path):
    journal = open_journal(tmp_path)
    records = fill(journal, 6)
    journal.acknowledge(3)
    journal.close()
    flip(next(tmp_path.glob("*.cursor")), 3)
    assert read_all(open_journal(tmp_path, epoch=2)) == records[3:]


def test_what_was_appended_and_acknowledged_survives_a_kill(tmp_path: Path):
    process = child(
        tmp_path,
        "for offset in range(1, 1001): journal.append(record(offset), offset)\n"
        "journal.acknowledge(400)\n"
        "print('done', flush=True)\n"
        "sys.stdin.read()\n",
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    journal = open_journal(tmp_path, epoch=2)
    assert (journal.recovery.acknowledged_offset, journal.recovery.events) == (400, 600)
    assert [offset_of(encoded) for encoded in read_all(journal)] == list(range(401, 1001))
    assert journal.recovery.damages == ()


@pytest.mark.parametrize("spare_bytes", [0, 10], ids=["refused whole", "written in part"])
def test_a_full_disk_costs_only_the_append_that_did_not_fit(tmp_path: Path, spare_bytes: int):
    process = child(
        tmp_path,
        "import json, resource\n"
        f"limit = 20 * len(record(1)) + {spare_bytes}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "report = {'refused': []}\n"
        "for offset in range(1, 23):\n"
        "    try: journal.append(record(offset), offset)\n"
        "    except JournalError as error: report['refused'].append(offset)\n"
        "report['used'] = journal.used_bytes\n"
        "report['read'] = [len(journal.read_after(after, 1 << 20)) for after in (0, 20)]\n"
        "journal.acknowledge(15)\n"
        "print(json.dumps(report))\n",
    )
    output, _ = process.communicate(timeout=30)
    report = json.loads(output)
    size = len(record(1, payload=bytes(100)))
    # What refused a write may be one file's trouble: the next append went into another one.
    assert report == {"refused": [21], "used": 21 * size, "read": [20, 1]}
    assert [path.stat().st_size for path in segments(tmp_path)] == [20 * size, size]
    journal = open_journal(tmp_path, epoch=2)
    assert (journal.recovery.events, journal.recovery.damages) == (6, ())


def test_appending_goes_on_once_the_disk_takes_data_again(tmp_path: Path):
    process = child(
        tmp_path,
        "import resource\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "journal.append(record(1), 1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))\n"
        "try: journal.append(record(2), 2)\n"
        "except JournalError: print('refused')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "journal.append(record(2), 2)\n",
    )
    output, _ = process.communicate(timeout=30)
    assert output == "refused\n"
    journal = open_journal(tmp_path, epoch=2)
    assert [offset_of(encoded) for encoded in read_all(journal)] == [1, 2]
    assert journal.recovery.damages == ()


def test_an_acknowledgement_succeeds_though_no_file_can_be_made(tmp_path: Path):
    process = child(
        tmp_path,
        "import os, resource\n"
        "for offset in range(1, 12): journal.append(record(offset, 100_000), offset)\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))\n"
        "journal.acknowledge(11)\n"
        "print(journal.used_bytes > 0)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))\n"
        "journal.append(record(12), 12)\n"
        "journal.acknowledge(12)\n"
        "print(journal.used_bytes)\n",
    )
    output, _ = process.communicate(timeout=30)
    assert output == "True\n0\n"


def test_torn_bytes_that_cannot_be_cut_off_cost_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = open_journal(tmp_path)
    records = fill(journal, 2)
    write = os.write

    def write_half(fd: int, data: bytes) -> int:
        return write(fd, data[: len(data) // 2])

    def fail(fd: int, length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, pytest.raises(JournalError, match="part"):
        patch.setattr(os, "write", write_half)
        patch.setattr(os, "ftruncate", fail)
        journal.append(record(3), 3)
    records += fill(journal, 2)
    assert read_all(journal) == records
    assert journal.used_bytes == sum(path.stat().st_size for path in segments(tmp_path))
    successor = open_journal(tmp_path, epoch=2)
    assert read_all(successor) == records
    assert successor.recovery.damages == ()


def test_a_disk_that_does_not_sync_costs_the_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(tmp_path, epoch=1, max_bytes=MIB, sync=True)
    records = fill(journal, 2)

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, pytest.raises(JournalError, match="Input/output"):
        patch.setattr(os, "fdatasync", fail)
        journal.append(record(3), 3)
    assert journal.used_bytes == segments(tmp_path)[0].stat().st_size == sum(map(len, records))
    records += fill(journal, 1)
    journal.sync()
    assert read_all(journal) == records


class JournalMachine(RuleBasedStateMachine):
    """The journal against a list: `records` is all that it accepted, `acknowledged` how far that is done."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.directory = Path(self.folder.name)
        self.records: list[bytes] = []
        self.acknowledged = 0
        # Incarnations that were replaced but go on.
        self.stale: list[Journal] = []
        self.gone: list[Journal] = []

    @initialize()
    def start(self) -> None:
        self.journal = self.open(1)

    def open(self, epoch: int) -> Journal:
        return open_journal(self.directory, epoch, max_bytes=4000, segment_bytes=400)

    def unacknowledged(self, after: int = 0) -> list[bytes]:
        start = max(after, self.acknowledged)
        return [encoded for encoded in self.records if offset_of(encoded) > start]

    @rule(
        payload_sizes=st.lists(st.integers(0, 300), min_size=1, max_size=5),
        kind=st.sampled_from(RecordKind),
        unused=st.tuples(st.sampled_from([0, 0, 2]), st.sampled_from([0, 0, 3])),
    )
    def append(self, payload_sizes: list[int], kind: RecordKind, unused: tuple[int, int]) -> None:
        """Offsets before and behind the records may be `unused`: theirs were dropped."""
        first = self.journal.last_offset + 1 + unused[0]
        batch = [
            record(offset, self.journal.epoch, bytes(size), kind)
            for offset, size in enumerate(payload_sizes, first)
        ]
        encoded, last = b"".join(batch), first + len(batch) - 1 + unused[1]
        if len(encoded) > self.journal.room_bytes:
            with pytest.raises(JournalError):
                self.journal.append(encoded, last)
        else:
            self.journal.append(encoded, last)
            self.records += batch

    @rule(share=st.floats(0, 1))
    def acknowledge(self, share: float) -> None:
        span = self.journal.last_offset - self.acknowledged
        self.acknowledged += round(share * span)
        self.journal.acknowledge(self.acknowledged)

    @rule(share=st.floats(0, 1), max_bytes=st.integers(0, 2000))
    def read(self, share: float, max_bytes: int) -> None:
        after = self.acknowledged + round(share * (self.journal.last_offset - self.acknowledged))
        found = read_all(self.journal, after, max_bytes)
        assert found == self.unacknowledged(after)

    @rule(lives_on=st.booleans())
    def crash(self, lives_on: bool) -> None:
        old, self.journal = self.journal, self.open(Journal.next_epoch(self.directory, 0))
        if lives_on:
            self.stale.append(old)
        else:
            self.gone.append(old)
        recovery, expected = self.journal.recovery, self.unacknowledged()
        assert (recovery.acknowledged_offset, recovery.last_epoch) == (self.acknowledged, old.epoch)
        assert (recovery.records, recovery.damages) == (len(expected), ())
        kinds = [decode(encoded, 0, check=True)[0].kind for encoded in expected]
        assert recovery.events == sum(kind in EVENT_KINDS for kind in kinds)
        assert recovery.bytes == sum(map(len, expected))

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), payload_sizes=st.lists(st.integers(0, 300), min_size=1, max_size=5))
    def a_stale_one_appends(self, data: st.DataObject, payload_sizes: list[int]) -> None:
        stale = data.draw(st.sampled_from(self.stale))
        for size in payload_sizes:
            encoded = record(stale.last_offset + 1, stale.epoch, b"\x01" * size)
            if len(encoded) <= stale.room_bytes:
                stale.append(encoded, stale.last_offset + 1)

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), share=st.floats(0, 1))
    def a_stale_one_acknowledges(self, data: st.DataObject, share: float) -> None:
        stale = data.draw(st.sampled_from(self.stale))
        stale.acknowledge(round(share * stale.last_offset))

    @invariant()
    def the_books_of_the_disk_are_exact(self) -> None:
        if not self.stale:
            used = sum(path.stat().st_size for path in segments(self.directory))
            assert self.journal.used_bytes == used
        assert self.journal.room_bytes == max(0, 4000 - self.journal.used_bytes)

    @invariant()
    def nothing_is_damaged(self) -> None:
        assert self.journal.damages == []

    def teardown(self) -> None:
        for journal in [self.journal, *self.gone, *self.stale]:
            journal.close()
        self.folder.cleanup()


JournalMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestJournalAgainstAList = JournalMachine.TestCase
