"""What a ledger comes to: open, healed and repaired holes, and the totals."""

from __future__ import annotations

from dataclasses import replace

from cli.display.losses import loss_table, total_sentence
from relay.losses.entry import LossEntry
from relay.losses.report import report_losses

SECOND = 10**9
LOST = LossEntry(
    stream="usdm:btcusdt@trade", first_id=11, last_id=20, count=10, cause="disconnect", from_ns=5 * SECOND,
    to_ns=7 * SECOND, suspect=True, reason="REST did not answer",
)  # fmt: skip
SETTLED = replace(LOST, healed=True, suspect=False, reason="", subject="binance.usdm.btcusdt.trade.repair")
TICKER = replace(LOST, stream="usdm:btcusdt@ticker", first_id=None, last_id=None, count=None, suspect=False)


def states(*entries: LossEntry) -> list[tuple[str, int | None]]:
    return [(record.state, record.open) for record in report_losses(entries).records]


def test_a_hole_is_open_until_an_entry_settles_its_ids() -> None:
    assert states(LOST) == [("open", 10)]
    assert states(LOST, replace(SETTLED, last_id=14, count=4)) == [("partly", 6)]
    assert states(LOST, replace(SETTLED, last_id=14, count=4), replace(SETTLED, first_id=15, count=6)) == [
        ("repaired", 0)
    ]


def test_another_stream_with_the_same_ids_settles_nothing() -> None:
    assert states(LOST, replace(SETTLED, stream="usdm:ethusdt@trade")) == [("open", 10), ("healed", 0)]


def test_a_hole_healed_in_its_place_was_never_open() -> None:
    report = report_losses([SETTLED])
    assert [record.state for record in report.records] == ["healed"]
    assert (report.open, report.healed, report.repaired) == (0, 10, 0)


def test_ids_that_never_were_are_no_loss() -> None:
    report = report_losses([replace(SETTLED, count=0)])
    assert [record.state for record in report.records] == ["no loss"]
    assert (report.open, report.healed) == (0, 0)


def test_totals_count_each_event_once() -> None:
    report = report_losses([LOST, replace(SETTLED, first_id=13, count=8), TICKER, TICKER])
    assert (report.open, report.repaired, report.healed, report.uncounted, report.suspect) == (2, 8, 0, 2, 2)
    assert total_sentence(report) == (
        "3 gaps: 2 events lost and not healed, 2 of them unconfirmed, 2 gaps whose events cannot be counted,"
        " 0 healed in their place, 8 repaired later"
    )


def test_since_and_stream_choose() -> None:
    later = replace(LOST, to_ns=90 * SECOND, stream="spot:btcusdt@trade")
    assert len(report_losses([LOST, later], since_ns=8 * SECOND).records) == 1
    assert len(report_losses([LOST, later], stream="btcusdt@trade").records) == 2
    assert len(report_losses([LOST, later], stream="spot:btcusdt@trade").records) == 1
    assert len(report_losses([LOST, later], stream="trade").records) == 0


def test_the_table_fits_and_says_what_cannot_be_counted() -> None:
    header, trade, ticker = loss_table(report_losses([replace(LOST, last_id=2**53), TICKER]))
    assert max(map(len, (header, trade, ticker))) <= 100
    assert trade.split()[:5] == ["btcusdt@trade", "11", str(2**53)[:12] + "…", "10", "open"]
    assert ticker.split()[1:5] == ["-", "-", "?", "open"]
    assert "1970-01-01 00:00:05" in trade and trade.endswith("2.0 s")
