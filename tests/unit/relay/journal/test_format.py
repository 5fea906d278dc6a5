"""The bytes on the disk are those that the journal's documentation describes."""

from __future__ import annotations

import re
from pathlib import Path
from zlib import crc32

import relay.journal
from relay.journal.journal import Journal
from relay.model.record_batch import RecordBatch, RecordKind, decode, encode

WIDTHS = {"u8": 1, "u32": 4, "u64": 8}
FIELDS = {"kind": 3, "records": 2, "offset": 4, "epoch": 5, "seq": 6, "recv_ns": 7}
EVENT_IDS, PAYLOADS = [9, -1], [b"{}", b"[10]"]


def documented_fields() -> list[tuple[int, int, str]]:
    """Position, width and name of each field before the records, from the table."""
    rows = re.findall(r"^    (\d+) +(u\d+) +(\w+)", relay.journal.__doc__ or "", re.MULTILINE)
    return [(int(at), WIDTHS[kind], name) for at, kind, name in rows]


def little(number: int, width: int) -> bytes:
    return number.to_bytes(width, "little", signed=number < 0)


def batch_by_hand() -> bytes:
    records = b"".join(
        (*(little(each, 8) for each in EVENT_IDS), *(little(len(each), 4) for each in PAYLOADS), *PAYLOADS)
    )
    block = bytearray(45) + records
    values = FIELDS | {"length": len(block) - 8}
    for at, width, name in documented_fields():
        if name != "crc32":
            block[at : at + width] = little(values[name], width)
    block[4:8] = little(crc32(bytes(block[8:])), 4)
    return bytes(block)


def test_the_documented_fields_fill_the_head_of_a_batch() -> None:
    at = 0
    for position, width, _ in documented_fields():
        assert position == at
        at += width
    assert at == 45
    assert {name for _, _, name in documented_fields()} == {"length", "crc32", *FIELDS}


def test_a_batch_assembled_by_hand_is_decoded() -> None:
    block = batch_by_hand()
    batch, end = decode(block, 0, check=True)
    assert end == len(block)
    assert {name: getattr(batch, name) for name in FIELDS if name != "records"} == {
        name: value for name, value in FIELDS.items() if name != "records"
    }
    assert (list(batch.event_ids), batch.payloads) == (EVENT_IDS, PAYLOADS)


def test_encoding_writes_the_documented_bytes() -> None:
    values = [FIELDS[name] for name in ("kind", "offset", "epoch", "seq", "recv_ns")]
    assert encode(*values, EVENT_IDS, PAYLOADS) == batch_by_hand()


def test_a_journal_makes_the_documented_files(tmp_path: Path) -> None:
    journal = Journal(tmp_path, epoch=7, max_bytes=1 << 20)
    batch = RecordBatch(RecordKind.EVENT, 1, 7, 1, 1, [1, 2], [b"{}", b"{}"]).encoded
    journal.append(batch, 2)
    journal.acknowledge(1)
    Journal.reserve_epochs_through(tmp_path, 9)
    copy = little(1, 8) + little(crc32(little(1, 8)), 4)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"{7:020}-{1:020}-{7:020}.seg": batch,
        f"{7:020}.cursor": 2 * copy,
        f"{9:020}.floor": b"",
    }
