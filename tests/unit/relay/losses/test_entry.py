"""Entries of the loss ledger, from value to JSON and back."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import UnreadableEntryError
from relay.losses.entry import LossEntry, read_entry
from relay.model.gap import LossCause

ids = st.none() | st.integers(0, 2**63 - 1)
times = st.integers(0, 4 * 10**12).map(lambda ms: ms * 1_000_000)
entries = st.builds(
    LossEntry,
    stream=st.sampled_from(["usdm:btcusdt@trade", "spot:ethusdt@depth"]),
    first_id=ids,
    last_id=ids,
    count=ids,
    cause=st.sampled_from(["disconnect", "upstream"]),
    from_ns=times,
    to_ns=times,
    healed=st.booleans(),
    subject=st.none() | st.just("binance.usdm.btcusdt.trade"),
    suspect=st.booleans(),
    reason=st.text(),
)
EARLIER = {
    "stream": "usdm:btcusdt@trade", "first_id": 1, "last_id": 2, "count": 2, "cause": "disconnect",
    "from": "2026-01-01T00:00:00.000Z", "to": "2026-01-01T00:00:01.000Z", "healed": False,
}  # fmt: skip


@given(entries)
def test_an_entry_comes_back_as_it_was_written(entry: LossEntry) -> None:
    assert read_entry(entry.encode()) == entry


def test_entries_without_the_later_fields_can_be_read() -> None:
    entry = read_entry(orjson.dumps(EARLIER))
    assert (entry.subject, entry.suspect, entry.reason) == (None, False, "")
    assert entry.to_ns - entry.from_ns == 10**9


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"stream":"a","first_id":"x"}', b"\xff"])
def test_what_is_no_entry_is_refused(payload: bytes) -> None:
    with pytest.raises(UnreadableEntryError):
        read_entry(payload)


def test_a_cause_that_another_version_wrote_is_kept_as_it_is():
    entry = replace(read_entry(orjson.dumps(EARLIER)), cause="flood")
    assert read_entry(entry.encode()) == entry


def test_a_cause_that_is_known_is_read_as_one():
    assert read_entry(orjson.dumps(EARLIER)).cause is LossCause.DISCONNECT
