"""What counts as lost, foreign or altered when the exchange's account meets the consumer's."""

from __future__ import annotations

from dataclasses import replace

from cli.display.audit import audit_table, comparison_table, total_line
from relay.audit.audit import Audit
from relay.audit.comparison import Sent, StreamComparison, compare
from relay.audit.stream_audit import StreamAudit
from relay.binance.id_gaps import gap_rule

KEY = "usdm:btcusdt@trade"


def found(stored: int, digest: str = "d", *, duplicated: int = 0, out_of_order: int = 0) -> StreamAudit:
    return StreamAudit(
        stream=KEY, stored=stored, duplicated=duplicated, out_of_order=out_of_order, missing_ids=0,
        missing_seqs=0, skipped=0, epochs=1, first_id="1", last_id="9", digest=digest,
        p50_ms=0.8, p99_ms=2.0, max_ms=3.0,
    )  # fmt: skip


def comparison(audit: StreamAudit | None, sent: int = 9, conflated: int = 0) -> StreamComparison:
    audits = [audit] if audit else []
    (only,) = compare({KEY: Sent(sent, "d")}, audits, {KEY: conflated})
    return only


def test_the_same_events_and_bytes_are_good() -> None:
    assert comparison(found(9)).passed
    assert comparison(found(9)).bytes_equal


def test_a_stream_of_which_nothing_is_stored_is_lost() -> None:
    assert comparison(None).lost == 9
    assert not comparison(None).passed


def test_what_a_policy_left_out_is_not_lost_and_its_bytes_are_not_compared() -> None:
    left_out = comparison(found(7), conflated=2)
    assert (left_out.lost, left_out.bytes_equal, left_out.passed) == (0, None, True)


def test_what_no_policy_left_out_is_lost() -> None:
    assert comparison(found(7), conflated=1).lost == 1


def test_more_than_was_sent_is_not_good() -> None:
    assert comparison(found(10)).unexpected == 1
    assert not comparison(found(10)).passed


def test_repaired_events_are_not_lost_but_not_in_order_either() -> None:
    late = comparison(replace(found(7), repaired=2, mended=((8, 9),)))
    assert (late.lost, late.bytes_equal, late.passed) == (0, None, True)
    assert "2 repaired" in total_line([late], Audit(gap_rule), passed=True)


def test_what_rest_gave_of_a_time_without_a_socket_counts_as_sent() -> None:
    """A hole in its own right must not hide behind events that nobody was there for."""
    healed = replace(found(9), healed=3, mended=((4, 6),))
    (whole,) = compare({KEY: Sent(6, "d", ((4, 6),))}, [healed], {})
    assert (whole.sent, whole.lost, whole.unexpected, whole.passed) == (9, 0, 0, True)
    (torn,) = compare({KEY: Sent(9, "d", ((4, 6),))}, [healed], {})
    assert torn.lost == 3


def test_a_stream_that_the_exchange_never_sent_is_not_good() -> None:
    (only,) = compare({}, [found(9)], {})
    assert only.unexpected == 9


def test_the_same_number_with_other_bytes_is_not_good() -> None:
    assert comparison(found(9, digest="other")).bytes_equal is False
    assert not comparison(found(9, digest="other")).passed


def test_duplicates_and_disorder_are_not_good() -> None:
    assert not comparison(found(9, duplicated=1)).passed
    assert not comparison(found(9, out_of_order=1)).passed


def test_one_line_says_it_all() -> None:
    assert total_line([comparison(found(9))], Audit(gap_rule), passed=True) == (
        "PASSED: 9 sent, 9 stored, 0 lost, 0 duplicated, 0 out of order, bytes equal, p50 - ms, p99 - ms"
    )
    assert total_line([comparison(found(8, duplicated=3))], Audit(gap_rule), passed=False).startswith(
        "FAILED: 9 sent, 8 stored, 1 lost, 3 duplicated, 0 out of order"
    )


def test_the_tables_fit_and_hold_the_figures() -> None:
    lines = comparison_table([comparison(found(7), conflated=2)], width=80)
    assert lines[1].split() == ["btcusdt@trade", "9", "7", "2", "0", "0", "0", "-", "0.80", "2.00"]
    assert audit_table([found(7)])[1].split() == [
        "btcusdt@trade",
        "7",
        "0",
        "0",
        "0",
        "0",
        "0.80",
        "2.00",
        "3.00",
    ]
    assert max(map(len, lines)) <= 80
