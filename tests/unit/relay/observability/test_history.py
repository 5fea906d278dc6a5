"""The charts' samples and the list of what happened."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import orjson
import pytest

from relay.model.stats import RelayStatus, ScaleMode, ScaleStatus, StreamState
from relay.observability.activity import diff_status
from relay.observability.history import (
    ENTRIES_KEPT,
    MERGE_WITHIN_NS,
    SAMPLE_INTERVAL_NS,
    SAMPLES_KEPT,
    History,
)
from tests.support.fakes import publisher_stats, stream_stats

BTC, ETH = stream_stats("usdm:btcusdt@trade", first_data_at_ns=1), stream_stats("usdm:ethusdt@trade")
P0 = publisher_stats("p0")
SECOND_NS = 1_000_000_000


def status(*streams, publishers=(P0,), **changes) -> RelayStatus:
    one = RelayStatus(
        config_version=1, controller_pid=9, uptime_s=1.0, delivery="jetstream", streams=streams,
        scale=ScaleStatus(mode=ScaleMode.AUTO, wanted=1, actual=1, min=1, max=2, reason="idle"),
        publishers=publishers,
    )  # fmt: skip
    return replace(one, **changes)


def told(before: RelayStatus, after: RelayStatus) -> list[str]:
    return [f"{one.severity} {one.about} {one}" for one in diff_status(before, after)]


def test_between_two_equal_looks_nothing_happened():
    assert told(status(BTC), status(BTC)) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lost": 1_234}, "bad usdm:btcusdt@trade lost 1,234, which the exchange sent and nobody received"),
        (
            {"gaps": 2},
            "bad usdm:btcusdt@trade has 2 gaps on the loss ledger; no ids tell whether anything was in them",
        ),
        (
            {"gaps": 1, "lost": 3},
            "bad usdm:btcusdt@trade lost 3, which the exchange sent and nobody received",
        ),
        ({"dropped": 2}, "bad usdm:btcusdt@trade dropped 2, as its overflow policy says"),
        (
            {"unaligned": 1},
            "bad usdm:btcusdt@trade replaced a connection without an overlap; events may be missing",
        ),
        ({"rejected": 1}, "warn usdm:btcusdt@trade rejected 1 that are not what the stream promises"),
        ({"conflated": 9}, "warn usdm:btcusdt@trade replaced 9 snapshots by later ones, memory being full"),
        ({"reconnects": 1}, "warn usdm:btcusdt@trade reconnected to the exchange"),
        ({"silences": 1}, "warn usdm:btcusdt@trade left a silent connection for a second one"),
        ({"failovers": 1}, "warn usdm:btcusdt@trade lost its publisher and went to another one"),
        ({"healed": 3}, "info usdm:btcusdt@trade had 3 missing events filled in over REST"),
        ({"repaired": 3}, "info usdm:btcusdt@trade had 3 lost events repaired over REST"),
        ({"rotations": 1}, "info usdm:btcusdt@trade rotated its connection without a gap"),
        ({"epoch": 2, "lost": 0}, "warn usdm:btcusdt@trade started again, as epoch 2"),
        ({"state": StreamState.BLOCKED}, "bad usdm:btcusdt@trade stopped reading: nothing more fits"),
    ],
)
def test_what_happens_to_a_stream_is_told(changes, text):
    assert told(status(BTC), status(replace(BTC, **changes))) == [text]


def test_a_new_incarnation_counts_from_nothing():
    """Its counters are lower than before, and what they hold was told of the one before or is its own."""
    assert told(status(replace(BTC, lost=5)), status(replace(BTC, epoch=2, lost=1))) == [
        "warn usdm:btcusdt@trade started again, as epoch 2"
    ]


def test_streams_come_with_their_first_data_and_go():
    arrived = replace(ETH, first_data_at_ns=1)
    assert told(status(BTC), status(BTC, ETH)) == []
    assert told(status(BTC, ETH), status(BTC, arrived)) == ["info usdm:ethusdt@trade had its first data"]
    assert told(status(BTC), status(BTC, arrived)) == ["info usdm:ethusdt@trade had its first data"]
    assert told(status(BTC, ETH), status(ETH)) == ["info usdm:btcusdt@trade ended"]
    blocked = replace(BTC, state=StreamState.BLOCKED)
    assert told(status(blocked), status(BTC)) == ["info usdm:btcusdt@trade reads again"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"connected": False}, "bad p0 has no connection to NATS"),
        ({"pid": 12}, "warn p0 started again"),
        ({"errors": 2, "last_error": "no room"}, "warn p0 had 2 refusals by NATS: no room"),
    ],
)
def test_what_happens_to_a_publisher_is_told(changes, text):
    assert told(status(), status(publishers=(replace(P0, **changes),))) == [text]


def test_publishers_come_and_go_and_the_pool_says_why():
    two = ScaleStatus(mode=ScaleMode.AUTO, wanted=2, actual=1, min=1, max=2, reason="a backlog of 9")
    more = status(publishers=(P0, publisher_stats("p1")), scale=two)
    wanted = "info pool wants 2 instead of 1, auto: a backlog of 9"
    assert told(status(), more) == ["info p1 serves now", wanted]
    assert "info p1 ended" in told(more, status())
    cut_off = status(publishers=(replace(P0, connected=False),))
    assert told(cut_off, status()) == ["info p0 is connected to NATS"]


def test_trouble_is_told_once_however_long_it_lasts():
    first, second = (status(problems=(f"p1 has not started for {s} s",)) for s in (15, 16))
    assert len(told(status(), first)) == 1
    assert told(first, second) == []
    assert told(status(), status(unreachable=("p0",))) == ["warn p0 does not answer"]


def test_an_actor_that_starts_is_no_trouble():
    assert told(status(), status(unreachable=("p1",))) == []


def look(history: History, after: int = 0):
    return orjson.loads(history.encoded(after))


def test_samples_come_once_a_second_and_the_oldest_go():
    history = History("run")
    for number in range(4 * SAMPLES_KEPT):
        history.update(status(BTC), number * SECOND_NS // 2)
    samples = look(history)["samples"]
    assert len(samples) == SAMPLES_KEPT
    gaps = {later["at_ns"] - earlier["at_ns"] for earlier, later in pairwise(samples)}
    assert gaps == {SECOND_NS}
    assert min(gaps) >= SAMPLE_INTERVAL_NS
    assert samples[-1]["streams"] == {"usdm:btcusdt@trade": [70.0, 0, 0.8, 2.1]}
    assert samples[-1]["publishers"] == {"p0": [0.05, 100.0]}


def test_what_goes_on_happening_is_one_line_that_grows():
    history = History("run")
    for number in range(5):
        history.update(status(replace(BTC, lost=2 * number)), number * SECOND_NS)
    (only,) = look(history)["happenings"]
    assert only["text"].startswith("lost 8,")
    assert (only["at_ns"], only["last_ns"]) == (SECOND_NS, 4 * SECOND_NS)
    history.update(status(replace(BTC, lost=9)), 5 * SECOND_NS + MERGE_WITHIN_NS)
    texts = [one["text"] for one in look(history)["happenings"]]
    assert [text.split(",")[0] for text in texts] == ["lost 8", "lost 1"]


def test_who_asks_again_gets_what_is_new_and_what_grew():
    history = History("run")
    history.update(status(BTC), 0)
    history.update(status(replace(BTC, lost=1)), SECOND_NS)
    first = look(history)
    assert look(history, first["last"]) == {"run": "run", "last": 2, "samples": [], "happenings": []}
    history.update(status(replace(BTC, lost=3)), 2 * SECOND_NS)
    news = look(history, first["last"])
    assert [sample["at_ns"] for sample in news["samples"]] == [2 * SECOND_NS]
    assert [one["id"] for one in news["happenings"]] == [first["happenings"][0]["id"]]


def test_a_clock_set_back_neither_stops_the_charts_nor_adds_up_what_is_hours_apart():
    history = History("one")
    for reconnects, at_ns in enumerate((9000, 9001, 5401, 5402)):
        history.update(status(replace(BTC, reconnects=reconnects)), at_ns * SECOND_NS)
    answer = look(history)
    assert [one["at_ns"] // SECOND_NS for one in answer["samples"]] == [9000, 9001, 5401, 5402]
    assert [one["text"] for one in answer["happenings"]] == ["reconnected to the exchange"] * 2


def test_numbers_of_another_controller_get_everything():
    history = History("run")
    history.update(status(BTC), 0)
    assert len(look(history, 10**9)["samples"]) == 1


def test_the_list_of_happenings_is_bounded():
    history = History("run")
    for number in range(ENTRIES_KEPT + 50):
        changed = replace(BTC, rotations=number)
        history.update(status(changed), number * (MERGE_WITHIN_NS + 1))
    assert len(look(history)["happenings"]) == ENTRIES_KEPT
