"""One stream inside a publisher: credit, protocol bytes, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.binance.streams import Venue, parse_stream
from relay.errors import LinkError
from relay.model.record_batch import MAX_BATCH_BYTES, MAX_RECORDS, RecordBatch, RecordKind
from relay.primitives.deficit_round_robin import DeficitRoundRobin
from relay.publish.encoder import Route
from relay.publish.lane import OVERHEAD_BYTES, Lane, LaneLimits

SPEC = parse_stream(Venue.USDM, "btcusdt@trade")
SUBJECT = "binance.usdm.btcusdt.trade"
REPAIR_SUBJECT = f"{SUBJECT}.repair"
CHAINED = Route(SUBJECT, REPAIR_SUBJECT, "_INBOX.x.1.", with_headers=True, max_payload=100_000)
CORE = Route(SUBJECT, REPAIR_SUBJECT, "", with_headers=False, max_payload=100_000)
NARROW = replace(CHAINED, max_payload=1000)
NOW = 5.0
RECV_NS = 1_767_225_600_000_000_000


def a_batch(first: int, *payloads: bytes, kind: RecordKind = RecordKind.EVENT) -> RecordBatch:
    """Records numbered from `first`, by offset, seq and id."""
    some = payloads or (b"{}",)
    ids = [first + n for n in range(len(some))]
    return RecordBatch(kind, first, 7, first, RECV_NS, ids, list(some))


def many(count: int, first: int = 1, payload: bytes = b"{}") -> RecordBatch:
    return a_batch(first, *[payload] * count)


def a_lane(route: Route = CHAINED, **limits: int) -> Lane:
    lane = Lane(SPEC, 7, LaneLimits(**limits))
    lane.begin(1, route)
    if route.reply_prefix:
        lane.chain.expect(40)
    return lane


def published(lane: Lane, budget_bytes: int = 10**9) -> list[bytes]:
    out: list[bytes] = []
    lane.publish(budget_bytes, out, NOW)
    joined = b"".join(out)
    return [b"HPUB" + part for part in joined.split(b"HPUB")[1:]] or joined.splitlines(keepends=True)


def replies(messages: list[bytes]) -> list[bytes]:
    """Where each asks for its answer; empty where it does not."""
    words = [message.partition(b"\r\n")[0].split() for message in messages]
    return [line[2] if len(line) == 5 else b"" for line in words]


def test_events_go_out_chained_and_the_last_of_a_group_asks_for_an_answer() -> None:
    lane = a_lane(max_messages_per_reply=2)
    lane.accept([many(3)], 0)
    first, second, third = published(lane)
    assert replies([first, second, third]) == [b"", b"_INBOX.x.1.1", b"_INBOX.x.1.2"]
    assert b"\r\nNats-Expected-Last-Sequence: 40\r\n" in first
    assert b"Nats-Expected-Last-Msg-Id: usdm:btcusdt@trade:1\r\nNats-Expected-Last-Sequence: 41\r\n" in second
    assert b"Nats-Expected-Last-Msg-Id: usdm:btcusdt@trade:2\r\nNats-Expected-Last-Sequence: 42\r\n" in third


def test_an_answer_to_the_last_acknowledges_its_whole_group() -> None:
    lane = a_lane(max_messages_per_reply=2)
    lane.accept([many(3)], 0)
    published(lane)
    lane.chain.acknowledge(1, NOW)
    last = lane.chain.advance()
    assert last is not None
    assert (last.offset, lane.chain.messages) == (2, 1)


def test_records_that_were_stored_before_are_skipped() -> None:
    lane = a_lane()
    lane.accept([many(4), many(2, first=5)], 3)
    assert lane.queued == 3
    numbered = enumerate(published(lane), 4)
    assert all(b"Nats-Msg-Id: usdm:btcusdt@trade:%d\r\n" % n in message for n, message in numbered)


def test_a_session_is_not_begun_anew_in_its_middle() -> None:
    lane = a_lane()
    lane.accept([many(4)], 0)
    with pytest.raises(LinkError, match="again"):
        lane.accept([many(4, first=5)], 1)


def test_core_delivery_without_headers_is_one_pub() -> None:
    lane = a_lane(CORE)
    lane.accept([many(1)], 0)
    line, body = published(lane)
    assert line == b"PUB binance.usdm.btcusdt.trade %d\r\n" % (len(body) - 2)


def test_side_records_stand_between_the_events_and_leave_the_chain_alone() -> None:
    lane = a_lane()
    lane.accept([many(1), a_batch(2, b'{"lost":1}', kind=RecordKind.LOSS), many(1, first=3)], 0)
    first, loss, event = published(lane)
    assert replies([first, loss, event]) == [b"_INBOX.x.1.1", b"_INBOX.x.1.2", b"_INBOX.x.1.3"]
    assert loss.startswith(b"HPUB sluice.loss.usdm.btcusdt.trade ")
    assert b"Expected" not in loss
    assert b"Nats-Expected-Last-Msg-Id: usdm:btcusdt@trade:1\r\nNats-Expected-Last-Sequence: 41\r\n" in event


def test_a_healed_event_takes_its_place_in_the_chain() -> None:
    lane = a_lane()
    lane.accept([many(1), a_batch(2, kind=RecordKind.HEALED), many(1, first=3)], 0)
    _, healed, after = published(lane)
    assert b"\r\nSluice-Healed: 1\r\n" in healed
    assert b"Nats-Expected-Last-Msg-Id: usdm:btcusdt@trade:2\r\n" in after


def test_what_is_over_the_servers_limit_is_refused_and_the_chain_skips_it() -> None:
    lane = a_lane(NARROW)
    lane.accept([a_batch(1, b"{}", b"x" * 1000, b"{}")], 0)
    first, last = published(lane)
    assert [offset for offset, _ in lane.refused] == [2]
    assert "more than the server's 1000" in lane.refused[0][1]
    assert b"Nats-Expected-Last-Msg-Id: usdm:btcusdt@trade:1\r\nNats-Expected-Last-Sequence: 41\r\n" in last
    assert replies([first, last]) == [b"_INBOX.x.1.1", b"_INBOX.x.1.3"]


@pytest.mark.parametrize("spare_bytes", [-1, 0, 1])
def test_the_servers_limit_is_kept_to_the_byte(spare_bytes: int) -> None:
    probe = a_lane()
    probe.accept([a_batch(1, b"x" * 5000)], 0)
    (message,) = published(probe)
    size = int(message.partition(b"\r\n")[0].split()[-1])
    lane = a_lane(replace(CHAINED, max_payload=size + spare_bytes))
    lane.accept([a_batch(1, b"x" * 5000)], 0)
    assert len(published(lane)) == (spare_bytes >= 0)
    assert len(lane.refused) == (spare_bytes < 0)


def test_a_refused_record_counts_as_acknowledged_in_its_place() -> None:
    lane = a_lane(NARROW)
    lane.accept([a_batch(1, b"{}", b"x" * 1000)], 0)
    published(lane)
    assert lane.chain.advance() is None
    lane.chain.acknowledge(1, NOW)
    last = lane.chain.advance()
    assert last is not None
    assert last.offset == 2


def test_the_window_bounds_what_is_on_its_way() -> None:
    lane = a_lane(window_messages=3)
    lane.accept([many(10)], 0)
    assert len(published(lane)) == 3
    assert not lane.ready
    assert lane.queued == 7
    lane.chain.acknowledge(1, NOW)
    lane.chain.advance()
    assert lane.ready


def test_more_messages_than_the_credit_and_one_batch_are_refused() -> None:
    lane = a_lane(credit_messages=10)
    lane.accept([many(9 + MAX_RECORDS)], 0)
    with pytest.raises(LinkError, match="credit"):
        lane.accept([many(1, first=9 + MAX_RECORDS)], 0)


def test_more_bytes_than_the_credit_and_one_batch_are_refused() -> None:
    lane = a_lane(credit_bytes=1000)
    lane.accept([a_batch(1, b"x" * 900), a_batch(2, b"x" * (MAX_BATCH_BYTES - 100))], 0)
    with pytest.raises(LinkError, match="credit"):
        lane.accept([a_batch(3, b"x" * 2000)], 0)


@given(st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=8), max_size=40))
def test_credit_comes_back_with_what_was_published(batches: list[list[int]]) -> None:
    lane = a_lane(credit_bytes=20_000, window_messages=10**6, window_bytes=10**9, credit_messages=10**6)
    number = 1
    for sizes in batches:
        lane.accept([a_batch(number, *(b"x" * size for size in sizes))], 0)
        number += len(sizes)
        published(lane)
    assert lane.queued == 0
    lane.accept([a_batch(number, b"x" * (20_000 + MAX_BATCH_BYTES - 49))], 0)


def test_a_session_that_ends_leaves_nothing_behind() -> None:
    lane = a_lane()
    lane.accept([many(100), many(100, first=101)], 0)
    published(lane)
    lane.end()
    assert not lane.open
    assert (lane.queued, lane.chain.messages) == (0, 0)
    lane.begin(2, CHAINED)
    assert not lane.ready


def test_the_budget_is_kept_to_the_byte() -> None:
    lane = a_lane()
    lane.accept([many(10, payload=b"x" * 600)], 0)
    out: list[bytes] = []
    used = lane.publish(3 * (600 + OVERHEAD_BYTES) + 999, out, NOW)
    assert used == 3 * (600 + OVERHEAD_BYTES)
    assert lane.queued == 7


@given(
    st.lists(st.lists(st.integers(0, 2000), min_size=1, max_size=20), min_size=1, max_size=10),
    st.integers(1, 40), st.integers(1, 20), st.integers(500, 20_000),
)  # fmt: skip
def test_everything_goes_out_once_and_in_order_whatever_the_limits(
    batches: list[list[int]], window: int, max_messages_per_reply: int, budget_bytes: int
) -> None:
    lane = a_lane(window_messages=window, max_messages_per_reply=max_messages_per_reply)
    number, sent = 1, []
    for sizes in batches:
        lane.accept([a_batch(number, *(b"x" * size for size in sizes))], 0)
        number += len(sizes)
    credit = 0
    while lane.queued:
        credit += budget_bytes
        out: list[bytes] = []
        used = lane.publish(credit, out, NOW)
        credit = credit - used if lane.ready else 0
        sent += out
        assert lane.chain.messages <= window
        for answer in range(lane.chain.last_number + 1):
            lane.chain.acknowledge(answer, NOW)
        lane.chain.advance()
    assert len(sent) == number - 1
    assert all(b"Sluice-Seq: %d\r\n" % n in message for n, message in enumerate(sent, 1))


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
            lane.accept([a_batch(at + 1, *(b"x" * n for n in flood_sizes[at : at + 50]))], 0)
        scheduler.add(lane)
    lanes[0].accept([a_batch(1, b"x" * calm_bytes)], 0)
    scheduler.add(lanes[0])
    before_bytes = 0
    while lanes[0].queued:
        lane, budget_bytes = scheduler.turn()
        used_bytes = lane.publish(budget_bytes, [], NOW)
        scheduler.end_turn(used_bytes, more=lane.ready)
        before_bytes += used_bytes if lane is not lanes[0] else 0
    assert before_bytes <= floods * quantum_bytes
