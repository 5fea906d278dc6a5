"""One stream inside a publisher: credit, protocol bytes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import LinkError
from relay.lane import OVERHEAD_BYTES, Lane, LaneLimits, Route
from relay.record import MAX_RECORD_BYTES, NO_EVENT_ID, Kind, Record
from relay.scheduler import DeficitRoundRobin
from relay.streams import Venue, parse_stream

SPEC = parse_stream(Venue.USDM, "btcusdt@trade")
SUBJECT = "binance.usdm.btcusdt.trade"
REPAIR_SUBJECT = f"{SUBJECT}.repair"
CHAINED = Route(SUBJECT, REPAIR_SUBJECT, "_INBOX.x.1.", with_headers=True, max_payload=100_000)
CORE = Route(SUBJECT, REPAIR_SUBJECT, "", with_headers=False, max_payload=100_000)
NARROW = replace(CHAINED, max_payload=1000)
NOW = 5.0


def a_record(n: int, payload: bytes = b"{}", kind: Kind = Kind.EVENT) -> Record:
    return Record(kind, n, 7, n, 1_767_225_600_000_000_000, n, payload)


def a_lane(route: Route = CHAINED, **limits: int) -> Lane:
    lane = Lane(SPEC, 7, LaneLimits(**limits))
    lane.begin(1, route)
    if route is CHAINED:
        lane.chain.expect_sequence(40)
    return lane


def accept(lane: Lane, *records: Record) -> None:
    lane.accept(records, sum(len(record.payload) + 49 for record in records))


def published(lane: Lane, budget_bytes: int = 10**9) -> list[bytes]:
    out: list[bytes] = []
    lane.publish(budget_bytes, out, NOW)
    joined = b"".join(out)
    return [b"HPUB" + part for part in joined.split(b"HPUB")[1:]] or joined.splitlines(keepends=True)


def test_a_chained_event_is_one_hpub_with_its_conditions() -> None:
    lane = a_lane()
    accept(lane, a_record(1), a_record(2))
    first, second = published(lane)
    assert first.startswith(b"HPUB binance.usdm.btcusdt.trade _INBOX.x.1.1 ")
    assert b"\r\nNats-Expected-Last-Sequence: 40\r\n" in first
    assert b"\r\nNats-Expected-Last-Msg-Id: usdm:btcusdt@trade:1\r\n" in second
    assert b"\r\nNats-Expected-Last-Sequence: 41\r\n" in second


def test_the_announced_sizes_are_the_real_ones() -> None:
    lane = a_lane()
    accept(lane, a_record(1, b'{"a":"' + "é".encode() + b'"}'))
    (message,) = published(lane)
    line, _, rest = message.partition(b"\r\n")
    header_bytes, total_bytes = (int(word) for word in line.split()[-2:])
    assert rest[:header_bytes].endswith(b"\r\n\r\n")
    assert len(rest) == total_bytes + 2
    assert rest[header_bytes:].startswith(b'{"stream":"btcusdt@trade","data":{"a":')


def test_core_delivery_without_headers_is_one_pub() -> None:
    lane = a_lane(CORE)
    accept(lane, a_record(1))
    line, body = published(lane)
    assert line == b"PUB binance.usdm.btcusdt.trade %d\r\n" % (len(body) - 2)


def test_side_records_go_to_their_own_subject_and_leave_the_chain_alone() -> None:
    lane = a_lane()
    accept(lane, a_record(1), a_record(2, b'{"lost":1}', Kind.LOSS), a_record(3))
    _, loss, event = published(lane)
    assert loss.startswith(b"HPUB sluice.loss.usdm.btcusdt.trade _INBOX.x.1.2 ")
    assert loss.endswith(b'\r\n\r\n{"lost":1}\r\n')
    assert b"Expected" not in loss
    assert b"Nats-Expected-Last-Msg-Id: usdm:btcusdt@trade:1\r\nNats-Expected-Last-Sequence: 41\r\n" in event


def test_a_healed_event_takes_its_place_in_the_chain_and_is_marked() -> None:
    lane = a_lane()
    accept(lane, a_record(1), a_record(2, kind=Kind.HEALED), a_record(3))
    plain, healed, after = published(lane)
    assert healed.startswith(b"HPUB binance.usdm.btcusdt.trade _INBOX.x.1.2 ")
    assert b"\r\nSluice-Healed: 1\r\n" in healed
    assert b"Sluice-Healed" not in plain + after
    assert b"Nats-Expected-Last-Msg-Id: usdm:btcusdt@trade:2\r\n" in after


def test_a_repair_has_the_events_own_id_and_envelope_on_a_subject_of_its_own() -> None:
    lane = a_lane()
    accept(lane, a_record(1), a_record(9, b'{"t":9}', Kind.REPAIR), a_record(3))
    _, repair, after = published(lane)
    assert repair.startswith(b"HPUB binance.usdm.btcusdt.trade.repair _INBOX.x.1.2 ")
    assert b"\r\nNats-Msg-Id: usdm:btcusdt@trade:9\r\n" in repair
    assert b"\r\nSluice-Healed: 1\r\n" in repair
    assert b'{"stream":"btcusdt@trade","data":{"t":9},"timestamp"' in repair
    assert b"Expected" not in repair
    assert b"Nats-Expected-Last-Msg-Id: usdm:btcusdt@trade:1\r\n" in after


def test_what_is_over_the_servers_limit_is_refused_and_the_chain_skips_it() -> None:
    lane = a_lane(NARROW)
    accept(lane, a_record(1), a_record(2, b"x" * 1000), a_record(3))
    lane.chain.expect_sequence(0)
    first, last = published(lane)
    assert [offset for offset, _ in lane.refused] == [2]
    assert b"Nats-Expected-Last-Msg-Id: usdm:btcusdt@trade:1\r\nNats-Expected-Last-Sequence: 1\r\n" in last
    assert b".1.1 " in first
    assert b".1.3 " in last


def test_a_refused_record_counts_as_acknowledged_in_its_place() -> None:
    lane = a_lane(NARROW)
    accept(lane, a_record(1), a_record(2, b"x" * 1000))
    published(lane)
    assert lane.chain.advance() is None
    lane.chain.acknowledge(1, NOW)
    assert lane.chain.advance() == 2


def test_the_window_bounds_what_is_on_its_way() -> None:
    lane = a_lane(window_messages=3)
    accept(lane, *(a_record(n) for n in range(1, 11)))
    assert len(published(lane)) == 3
    assert not lane.ready
    assert lane.queued == 7
    lane.chain.acknowledge(1, NOW)
    lane.chain.advance()
    assert lane.ready


def test_more_messages_than_the_credit_are_refused() -> None:
    lane = a_lane(credit_messages=10)
    accept(lane, *(a_record(n) for n in range(1, 11)))
    with pytest.raises(LinkError, match="credit"):
        accept(lane, a_record(11))


def test_more_bytes_than_the_credit_and_one_record_are_refused() -> None:
    lane = a_lane(credit_bytes=1000)
    accept(lane, a_record(1, b"x" * 900), a_record(2, b"x" * (MAX_RECORD_BYTES - 100)))
    with pytest.raises(LinkError, match="credit"):
        accept(lane, a_record(3, b"x" * 2000))


@given(st.lists(st.lists(st.integers(0, 3000), max_size=8), max_size=40))
def test_credit_comes_back_with_what_was_published(batches: list[list[int]]) -> None:
    lane = a_lane(credit_bytes=20_000, window_messages=10**6, window_bytes=10**9, credit_messages=10**6)
    number = 0
    for sizes in batches:
        records = [a_record(number + at, b"x" * size) for at, size in enumerate(sizes, 1)]
        number += len(sizes)
        accept(lane, *records)
        published(lane)
    assert lane.queued == 0
    accept(lane, a_record(number + 1, b"x" * (20_000 + MAX_RECORD_BYTES - 49)))


def test_a_session_that_ends_leaves_nothing_behind() -> None:
    lane = a_lane()
    accept(lane, *(a_record(n) for n in range(1, 200)))
    published(lane)
    lane.end()
    assert not lane.open
    assert (lane.queued, len(lane.chain)) == (0, 0)
    lane.begin(2, CHAINED)
    assert not lane.ready


def test_the_budget_is_kept_to_the_byte() -> None:
    lane = a_lane()
    accept(lane, *(a_record(n, b"x" * 600) for n in range(1, 11)))
    out: list[bytes] = []
    used = lane.publish(3 * (600 + OVERHEAD_BYTES) + 999, out, NOW)
    assert used == 3 * (600 + OVERHEAD_BYTES)
    assert lane.queued == 7


@given(
    st.integers(1, 900),
    st.lists(st.integers(0, 5000), min_size=200, max_size=400),
    st.integers(1, 6),
)
def test_a_calm_event_waits_for_one_quantum_of_each_flooding_stream(
    calm_bytes: int, flood_sizes: list[int], floods: int
) -> None:
    """However far the floods are ahead, and whatever the sizes of their events."""
    quantum_bytes = 16 * 1024
    wide = {"window_messages": 10**6, "window_bytes": 10**9, "credit_messages": 10**6}
    lanes = [a_lane(CORE, **wide) for _ in range(floods + 1)]
    scheduler = DeficitRoundRobin[Lane](quantum_bytes)
    for lane in lanes[1:]:
        for at in range(0, len(flood_sizes), 50):
            accept(lane, *(Record(0, n, 7, n, 0, NO_EVENT_ID, b"x" * n) for n in flood_sizes[at : at + 50]))
        scheduler.add(lane)
    accept(lanes[0], a_record(1, b"x" * calm_bytes))
    scheduler.add(lanes[0])
    before_bytes = 0
    while lanes[0].queued:
        lane, budget_bytes = scheduler.turn()
        used_bytes = lane.publish(budget_bytes, [], NOW)
        scheduler.settle(used_bytes, more=lane.ready)
        before_bytes += used_bytes if lane is not lanes[0] else 0
    assert before_bytes <= floods * quantum_bytes
