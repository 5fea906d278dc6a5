"""What instances tell each other: what one writes the other reads, and nothing else is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import LinkError
from relay.model.position import StoredPosition, digest_of, position_of
from relay.model.record_batch import RecordBatch, RecordKind
from relay.standby.peer_status import (
    PeerStatus,
    encode_instance_id,
    encode_status,
    read_instance_id,
    read_status,
)

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
points = st.builds(StoredPosition, u64, u64, st.integers(-1, 2**63 - 1), u64, st.integers(0, 2**63 - 1))
statuses = st.builds(
    PeerStatus, u64, st.booleans(), st.booleans(), st.booleans(), u64, u32, u64, u64, u64, points
)


@given(statuses)
def test_a_status_arrives_as_it_was_sent(status: PeerStatus) -> None:
    assert read_status(encode_status(status)) == status


@given(u64)
def test_a_name_arrives(instance: int) -> None:
    assert read_instance_id(encode_instance_id(instance)) == instance


@given(
    st.binary(max_size=200).filter(lambda body: len(body) != len(encode_status(PeerStatus(1, active=True))))
)
def test_what_is_no_status_is_refused(body: bytes) -> None:
    with pytest.raises(LinkError):
        read_status(body)


@pytest.mark.parametrize("body", [b"", b"1234567", b"123456789"])
def test_what_is_no_name_is_refused(body: bytes) -> None:
    with pytest.raises(LinkError):
        read_instance_id(body)


def test_an_event_is_known_by_its_place_its_id_and_its_bytes() -> None:
    event = RecordBatch(RecordKind.EVENT, 9, 5, 3, 77, [12], [b"payload"])
    assert position_of(event) == StoredPosition(5, 3, 12, 77, digest_of(b"payload"))


@given(st.binary())
def test_a_digest_fits_where_an_id_does(payload: bytes) -> None:
    assert 0 <= digest_of(payload) < 2**63


def test_who_has_a_newer_journal_or_has_read_for_longer_goes_first() -> None:
    instances = [
        PeerStatus(5, active=False, journal_epoch=9, since_ns=0),
        PeerStatus(4, active=False, journal_epoch=8, since_ns=1),
        PeerStatus(3, active=False, journal_epoch=8, since_ns=2),
        PeerStatus(1, active=False, journal_epoch=8, since_ns=0),
        PeerStatus(2, active=False, journal_epoch=8, since_ns=0),
    ]
    assert sorted(instances, key=lambda status: status.election_rank) == instances
