"""The audit's verdicts on made-up deliveries, and against the truth for random damage."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audit.audit import Audit
from relay.audit.stream_audit import REMEMBERED_IDS, StreamAudit
from relay.binance.id_gaps import gap_rule
from relay.losses.entry import LossEntry

Message = tuple[dict[str, str] | None, bytes]
SECOND_NS = 1_000_000_000


def message(stream: str, number: str, payload: str, *, epoch: int = 7, seq: int = 1) -> Message:
    identity = f"usdm:{stream}:{number}"
    body = (
        f'{{"stream":"{stream}","data":{payload},"timestamp":"2026-01-01T00:00:00.123456Z",'
        f'"message_id":"{identity}","source":"binance-websocket","version":"1.0"}}'
    )
    marks = {"Sluice-Epoch": str(epoch), "Sluice-Seq": str(seq), "Sluice-Recv-Ns": str(SECOND_NS)}
    return {"Nats-Msg-Id": identity, **marks}, body.encode()


def trade(number: int, *, epoch: int = 7) -> Message:
    return message("btcusdt@trade", str(number), f'{{"t": {number}}}', epoch=epoch, seq=number)


def ticker(seq: int, *, epoch: int = 7) -> Message:
    return message("btcusdt@ticker", f"{epoch}-{seq}", '{"e":"24hrTicker"}', epoch=epoch, seq=seq)


def depth(last: int, previous: int, seq: int) -> Message:
    return message("btcusdt@depth@100ms", str(last), f'{{"u":{last},"pu":{previous}}}', seq=seq)


def audited(messages: list[Message]) -> StreamAudit:
    audit = Audit(gap_rule)
    for headers, body in messages:
        audit.event_received(headers, body, 2 * SECOND_NS)
    assert audit.malformed == 0, audit.last_problem
    (only,) = audit.report()
    return only


def test_a_whole_stream_is_clean() -> None:
    found = audited([trade(n) for n in range(500, 600)])
    assert found.clean
    assert (found.stored, found.first_id, found.last_id) == (100, "500", "599")


def test_a_jump_in_the_exchanges_ids_is_a_loss_of_the_ids_between() -> None:
    found = audited([trade(n) for n in (5, 6, 9, 10)])
    assert (found.missing_ids, found.missing_seqs, found.lost) == (2, 2, 2)


def test_streams_without_ids_lose_by_sequence() -> None:
    found = audited([ticker(1), ticker(4)])
    assert (found.missing_ids, found.lost) == (None, 2)


def test_a_policy_that_leaves_events_out_skips_and_does_not_lose() -> None:
    audit = Audit(gap_rule, skipping={"usdm:btcusdt@ticker"})
    for headers, body in (ticker(1), ticker(4)):
        audit.event_received(headers, body, SECOND_NS)
    (found,) = audit.report()
    assert (found.skipped, found.lost, found.clean) == (2, 0, True)


def test_a_new_incarnation_counts_from_one_and_loses_nothing() -> None:
    found = audited([ticker(8), ticker(9), ticker(1, epoch=8), ticker(2, epoch=8)])
    assert found.clean
    assert found.epochs == 2


def test_a_new_incarnation_that_begins_late_lost_its_beginning() -> None:
    assert audited([ticker(9), ticker(3, epoch=8)]).lost == 2


def test_an_earlier_incarnation_must_not_speak_after_a_later_one() -> None:
    assert audited([ticker(1, epoch=8), ticker(9, epoch=7)]).out_of_order == 1


def test_a_repeat_is_a_duplicate_and_not_a_disorder() -> None:
    found = audited([trade(1), trade(2), trade(1), trade(3)])
    assert (found.stored, found.duplicated, found.out_of_order, found.lost) == (3, 1, 0, 0)


def test_a_repeat_too_old_to_remember_is_still_noticed() -> None:
    numbers = [*range(1, REMEMBERED_IDS + 2), 1]
    assert not audited([trade(n) for n in numbers]).clean


def test_an_overtaken_message_is_out_of_order_and_not_lost() -> None:
    found = audited([trade(1), trade(3), trade(2), trade(4)])
    assert (found.out_of_order, found.lost) == (1, 0)


def test_depth_is_followed_by_its_links() -> None:
    assert audited([depth(10, 7, 1), depth(15, 10, 2)]).clean
    assert audited([depth(10, 7, 1), depth(15, 12, 2)]).missing_ids == 1


def test_the_latency_is_from_the_socket_to_the_consumer() -> None:
    found = audited([trade(1)])
    assert found.p50_ms == pytest.approx(1000, rel=0.04)
    assert found.max_ms == 1000


def test_without_headers_sequences_come_from_the_ids() -> None:
    found = audited([(None, body) for _, body in (ticker(1), ticker(4))])
    assert (found.lost, found.p50_ms) == (2, None)


def test_the_digest_is_over_the_payloads_own_bytes_with_their_lengths() -> None:
    payload = b'{"t": 1}'
    expected = blake2b(len(payload).to_bytes(4, "big") + payload, digest_size=16).hexdigest()
    assert audited([trade(1)]).digest == expected


def test_fences_are_no_events() -> None:
    audit = Audit(gap_rule)
    audit.event_received({"Nats-Msg-Id": "fence:usdm:btcusdt@trade:8"}, b"", SECOND_NS)
    assert (audit.report(), audit.malformed) == ([], 0)


def healed(number: int) -> Message:
    headers, body = trade(number)
    assert headers is not None
    return {**headers, "Sluice-Healed": "1"}, body


def with_side(messages: list[Message], side: list[tuple[str, Message]]) -> StreamAudit:
    audit = Audit(gap_rule)
    for subject, (headers, body) in side:
        audit.side_record_received(subject, headers, body)
    for headers, body in messages:
        audit.event_received(headers, body, SECOND_NS)
    assert audit.malformed == 0, audit.last_problem
    (only,) = audit.report()
    return only


def entry(first: int, last: int, *, count: int, healed: bool) -> tuple[str, Message]:
    loss = LossEntry(
        stream="usdm:btcusdt@trade", first_id=first, last_id=last, count=count, cause="disconnect",
        from_ns=0, to_ns=SECOND_NS, healed=healed,
    )  # fmt: skip
    return "sluice.loss.usdm.btcusdt.trade", ({}, loss.encode())


REPAIRS = "binance.usdm.btcusdt.trade.repair"


def test_healed_events_are_events_in_their_place() -> None:
    found = audited([trade(1), healed(2), healed(3), trade(4)])
    assert found.clean
    assert (found.stored, found.healed, found.mended) == (4, 2, ((2, 3),))


def test_missing_ids_on_the_subject_of_repairs_are_not_lost() -> None:
    side = [(REPAIRS, healed(2)), (REPAIRS, healed(3)), entry(2, 4, count=3, healed=False)]
    found = with_side([trade(1), trade(5)], side)
    # The sequence has no hole: nobody has accepted these events in the stream.
    found = replace(found, missing_seqs=0)
    assert (found.missing_ids, found.repaired, found.lost, found.mended) == (3, 2, 1, ((2, 3),))


def test_ids_that_never_were_are_not_lost() -> None:
    found = with_side([trade(1), trade(5)], [entry(2, 4, count=0, healed=True)])
    assert (found.absent, replace(found, missing_seqs=0).lost) == (3, 0)


def test_a_repair_of_what_is_stored_or_repaired_already_is_a_duplicate() -> None:
    side = [(REPAIRS, healed(2)), (REPAIRS, healed(2)), (REPAIRS, healed(5)), (REPAIRS, healed(50))]
    assert with_side([trade(1), trade(5)], side).duplicated == 2


def test_rejected_frames_are_no_business_of_the_audit() -> None:
    found = with_side([trade(1)], [("sluice.rejected.usdm.btcusdt.trade", ({}, b"{}"))])
    assert found.clean


HEADERS, BODY = trade(1)
assert HEADERS is not None
BROKEN = {
    "no JSON": (HEADERS, b"{"),
    "no object": (HEADERS, b"[]"),
    "no envelope": (HEADERS, b"{}"),
    "another order": (HEADERS, BODY.replace(b'"version":"1.0"', b'"version" :"1.0"')),
    "another stream than its id": (HEADERS, BODY.replace(b'"btcusdt@trade"', b'"ethusdt@trade"')),
    "another id than its header": ({**HEADERS, "Nats-Msg-Id": "usdm:btcusdt@trade:2"}, BODY),
    "no sequence": ({"Nats-Msg-Id": "usdm:btcusdt@trade:1"}, BODY),
    "unknown stream": message("btcusdt@nothing", "1", "{}"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_message_that_breaks_the_contract_is_counted_as_such(broken: Message) -> None:
    audit = Audit(gap_rule)
    audit.event_received(*broken, SECOND_NS)
    assert (audit.malformed, audit.report()) == (1, [])


@given(
    missing=st.sets(st.integers(2, 59)),
    repeated=st.sets(st.integers(1, 60)),
)
def test_the_audit_finds_exactly_the_damage_done(missing: set[int], repeated: set[int]) -> None:
    kept = [n for n in range(1, 61) if n not in missing]
    again = [n for n in kept if n in repeated]
    found = audited([m for n in kept for m in [trade(n)] * (2 if n in repeated else 1)])
    assert (found.stored, found.lost, found.duplicated) == (len(kept), len(missing), len(again))
    assert found.out_of_order == 0


@given(st.permutations(range(1, 12)))
def test_only_the_rising_order_is_clean(order: list[int]) -> None:
    found = audited([trade(n) for n in order])
    assert found.clean == (order == sorted(order))


def test_findings_differ_when_one_byte_differs() -> None:
    one, other = audited([trade(1)]), audited([message("btcusdt@trade", "1", '{"t":  1}')])
    assert replace(one, digest="") == replace(other, digest="")
    assert one.digest != other.digest
