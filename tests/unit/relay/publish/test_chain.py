"""The publish window: numbers go out in order, answers come in any order, the prefix is what counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.publish.chain import Chain, PublishRefusal, read_reply

NOW = 100.0


def a_chain(sent: int = 0, max_messages: int = 8, max_bytes: int = 10_000) -> Chain:
    chain = Chain(max_messages, max_bytes)
    for offset in range(sent):
        chain.send(1000 + offset, 1, 100, NOW)
    return chain


def advanced_to(chain: Chain) -> int:
    last = chain.advance()
    assert last is not None
    return last.offset


def test_messages_are_numbered_from_one() -> None:
    chain = a_chain()
    assert [chain.send(7, 1, 1, NOW), chain.send(8, 1, 1, NOW)] == [1, 2]
    assert chain.last_number == 2


def test_acknowledgements_in_order_advance_one_by_one() -> None:
    chain = a_chain(sent=3)
    chain.acknowledge(1, NOW)
    assert advanced_to(chain) == 1000
    chain.acknowledge(2, NOW)
    assert advanced_to(chain) == 1001
    assert chain.messages == 1


def test_a_later_acknowledgement_waits_for_the_earlier_one() -> None:
    chain = a_chain(sent=3)
    chain.acknowledge(3, NOW)
    chain.acknowledge(2, NOW)
    assert chain.advance() is None
    chain.acknowledge(1, NOW)
    assert advanced_to(chain) == 1002


@pytest.mark.parametrize("number", [0, -1, 4, 10**12])
def test_a_number_that_was_never_sent_changes_nothing(number: int) -> None:
    chain = a_chain(sent=3)
    assert chain.acknowledge(number, NOW) is None
    assert chain.advance() is None
    assert chain.messages == 3


def test_a_second_answer_to_one_message_is_ignored() -> None:
    chain = a_chain(sent=2)
    assert chain.acknowledge(2, NOW) is not None
    assert chain.acknowledge(2, NOW) is None


def test_room_is_bounded_by_messages() -> None:
    assert a_chain(sent=7).room_messages == 1
    assert a_chain(sent=8).room_messages == 0
    chain = a_chain()
    chain.send(5, 6, 100, NOW)
    assert (chain.messages, chain.room_messages) == (6, 2)


def test_room_is_bounded_by_bytes_but_one_giant_message_passes() -> None:
    chain = a_chain()
    chain.send(1, 1, 50_000, NOW)
    assert chain.room_messages == 0
    chain.acknowledge(1, NOW)
    chain.advance()
    assert chain.room_messages == 8


def test_nothing_is_expected_before_the_chain_begins() -> None:
    chain = a_chain()
    assert not chain.is_chained
    chain.expect(0)
    assert chain.is_chained
    assert (chain.expected_sequence, chain.last_id) == (0, b"")


def test_it_stalls_when_nothing_is_acknowledged_for_the_limit() -> None:
    chain = a_chain(sent=2)
    assert not chain.stalled(NOW + 2.0, 2.0)
    assert chain.stalled(NOW + 2.1, 2.0)
    chain.acknowledge(1, NOW + 2.0)
    assert not chain.stalled(NOW + 4.0, 2.0)


def test_an_idle_chain_never_stalls_and_starts_its_clock_with_the_first_message() -> None:
    chain = a_chain()
    assert not chain.stalled(NOW + 1000, 2.0)
    chain.send(1, 1, 1, NOW + 1000)
    assert not chain.stalled(NOW + 1001, 2.0)


@given(st.permutations(range(1, 31)))
def test_any_order_of_answers_advances_over_the_longest_prefix(order: list[int]) -> None:
    chain = a_chain(sent=30, max_messages=30)
    answered: set[int] = set()
    advanced = 0
    for number in order:
        chain.acknowledge(number, NOW)
        answered.add(number)
        if (last := chain.advance()) is not None:
            advanced = last.offset - 999
        prefix = next(n for n in range(32) if n + 1 not in answered)
        assert advanced == prefix
    assert advanced == 30
    assert chain.messages == 0


def test_numbers_go_on_after_the_window_was_emptied() -> None:
    chain = a_chain(sent=2)
    for number in (1, 2):
        chain.acknowledge(number, NOW)
    chain.advance()
    assert chain.last_number == 2
    assert chain.send(5, 1, 1, NOW) == 3


def test_a_plain_answer_is_stored() -> None:
    assert read_reply(b'{"stream":"SLUICE_usdm_btcusdt_trade", "seq":12}', 0) is False


def test_a_repeat_is_told_apart() -> None:
    assert read_reply(b'{"stream":"S", "seq":12,"duplicate": true}', 0) is True
    assert read_reply(b'{"stream":"S", "domain":"hub", "seq":12}', 0) is False


def test_a_broken_chain_is_a_refusal_that_names_the_tip() -> None:
    data = b'{"error":{"code":400,"err_code":10070,"description":"wrong last msg ID: a4"},"stream":"S"}'
    refusal = read_reply(data, 0)
    assert refusal == PublishRefusal(10070, "wrong last msg ID: a4")
    assert str(refusal) == "wrong last msg ID: a4 (10070)"


def test_a_full_stream_is_a_refusal_of_another_kind() -> None:
    data = b'{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"S"}'
    refusal = read_reply(data, 0)
    assert isinstance(refusal, PublishRefusal)
    assert refusal.code == 10077


def test_no_responders_is_a_refusal() -> None:
    refusal = read_reply(b"", 503)
    assert isinstance(refusal, PublishRefusal)
    assert refusal.code == 503


@given(st.binary(max_size=80))
def test_junk_is_never_taken_for_an_acknowledgement(data: bytes) -> None:
    assert isinstance(read_reply(data, 0), PublishRefusal)


@pytest.mark.parametrize("data", [b"", b"null", b"{}", b'{"seq":"1"}', b'{"error":7}', b'{"error":{}}'])
def test_an_unreadable_answer_is_a_refusal(data: bytes) -> None:
    refusal = read_reply(data, 0)
    assert isinstance(refusal, PublishRefusal)
    assert refusal.code == 0
