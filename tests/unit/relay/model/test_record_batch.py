"""Batches survive their encoding, and nothing else is taken for one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import DamagedBatchError
from relay.model.record_batch import (
    MAX_BATCH_BYTES,
    OVERHEAD_BYTES,
    RecordBatch,
    RecordKind,
    batch_end,
    decode,
    has_valid_checksum,
    head,
    record_of,
    slice_records,
)

u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def batches(draw: st.DrawFn, most: int = 6) -> RecordBatch:
    records = draw(st.lists(st.tuples(i64, st.binary(max_size=60)), min_size=1, max_size=most))
    return RecordBatch(
        draw(st.sampled_from(list(RecordKind))),
        draw(u64),
        draw(u64),
        draw(u64),
        draw(u64),
        [event_id for event_id, _ in records],
        [payload for _, payload in records],
    )


def same(one: RecordBatch, other: RecordBatch) -> bool:
    return (one.kind, one.offset, one.epoch, one.seq, one.recv_ns, list(one.event_ids), one.payloads) == (
        other.kind, other.offset, other.epoch, other.seq, other.recv_ns, list(other.event_ids), other.payloads
    )  # fmt: skip


@given(batches(), st.binary(max_size=20), st.binary(max_size=20))
def test_a_batch_is_read_back_wherever_it_stands(batch: RecordBatch, before: bytes, behind: bytes) -> None:
    encoded = batch.encoded
    read, end = decode(before + encoded + behind, len(before), check=True)
    assert same(read, batch)
    assert end == len(before) + len(encoded)
    first = head(encoded)
    assert (first.kind, first.records, first.offset, first.epoch, first.seq, first.recv_ns) == (
        batch.kind, len(batch), batch.offset, batch.epoch, batch.seq, batch.recv_ns
    )  # fmt: skip


def test_the_overhead_is_that_of_one_record() -> None:
    assert len(RecordBatch(0, 1, 2, 3, 4, [5], [b"xyz"]).encoded) == OVERHEAD_BYTES + 3


@given(batches(most=1))
def test_one_record_is_laid_out_like_many(batch: RecordBatch) -> None:
    """It takes a shorter way through the codec."""
    two = replace(batch, event_ids=[*batch.event_ids, 9], payloads=[*batch.payloads, b"z"])
    assert slice_records(two.encoded, 0, 1) == batch.encoded


@given(batches(), st.data())
def test_a_cut_holds_the_records_that_it_names(batch: RecordBatch, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(batch) - 1))
    stop = data.draw(st.integers(first + 1, len(batch)))
    if batch.offset + first >= 2**64 or batch.seq + first >= 2**64:
        return
    part, _ = decode(slice_records(batch.encoded, first, stop), 0, check=True)
    assert (part.offset, part.seq) == (batch.offset + first, batch.seq + first)
    assert part.payloads == batch.payloads[first:stop]
    assert list(part.event_ids) == list(batch.event_ids[first:stop])
    assert record_of(batch.encoded, first).payloads == [batch.payloads[first]]


@given(batches(), st.data())
def test_what_is_cut_short_is_torn(batch: RecordBatch, data: st.DataObject) -> None:
    encoded = batch.encoded
    with pytest.raises(DamagedBatchError):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))], 0, check=False)


@given(batches(), st.data())
def test_any_flipped_bit_is_noticed(batch: RecordBatch, data: st.DataObject) -> None:
    encoded = bytearray(batch.encoded)
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedBatchError):
        decode(bytes(encoded), 0, check=True)


@pytest.mark.parametrize("length", [0, OVERHEAD_BYTES - 9, MAX_BATCH_BYTES + 1, 2**32 - 1])
def test_an_absurd_length_is_refused_before_anything_is_read(length: int) -> None:
    encoded = length.to_bytes(4, "little") + bytes(200)
    with pytest.raises(DamagedBatchError, match="absurd"):
        batch_end(encoded, 0)


@pytest.mark.parametrize("records", [0, 3, 2**32 - 1])
def test_another_number_of_records_than_there_are_is_refused(records: int) -> None:
    encoded = bytearray(RecordBatch(0, 1, 2, 3, 4, [5, 6], [b"x", b"y"]).encoded)
    encoded[9:13] = records.to_bytes(4, "little")
    with pytest.raises(DamagedBatchError):
        decode(bytes(encoded), 0, check=False)


@given(st.binary(max_size=300))
def test_junk_is_no_batch(data: bytes) -> None:
    try:
        batch, end = decode(data, 0, check=True)
    except DamagedBatchError:
        return
    assert batch.encoded == data[:end]
    assert has_valid_checksum(data, 0)
