from __future__ import annotations

from relay.feed.address_fallback import AddressFallback


def attempts(last: AddressFallback, count: int) -> list[str | None]:
    """Where each led, none of which answered."""
    tried = []
    for _ in range(count):
        tried.append(last.next_address)
        last.failed(answered=False)
    return tried


def test_it_is_asked_by_name_until_there_is_an_address_that_worked() -> None:
    last = AddressFallback()
    assert attempts(last, 3) == [None, None, None]
    last.reached("")
    assert attempts(last, 2) == [None, None]


def test_the_name_and_the_address_that_worked_last_take_turns_until_one_leads_somewhere() -> None:
    last = AddressFallback()
    last.reached("192.0.2.1")
    assert attempts(last, 4) == [None, "192.0.2.1", None, "192.0.2.1"]
    last.reached("192.0.2.2")
    last.reached("")
    assert attempts(last, 2) == [None, "192.0.2.2"]


def test_who_answers_by_name_is_asked_by_name_again() -> None:
    last = AddressFallback()
    last.reached("192.0.2.1")
    last.failed(answered=True)
    assert last.next_address is None
    last.failed(answered=False)
    assert last.next_address == "192.0.2.1"
    last.failed(answered=True)
    assert last.next_address is None, "whoever has the old address now must not hold the stream up"
