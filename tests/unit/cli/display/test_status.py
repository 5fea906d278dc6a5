"""What the live table shows, and that it fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.display.status import MAX_WIDTH, Progress, render, summary_line
from cli.display.terminal import Tone, bar
from relay.model.choices import Overflow
from relay.model.stats import (
    PublisherStats,
    RelayStatus,
    ScaleMode,
    ScaleStatus,
    StreamState,
    StreamStats,
    WarmLeg,
)


def a_stream(name: str = "btcusdt@trade", **changes: object) -> StreamStats:
    stream = StreamStats(
        stream=name, venue="usdm", symbol="btcusdt", channel="trade", state=StreamState.LIVE,
        overflow=Overflow.SPILL, epoch=1, pid=10, node="n", publisher="publisher-1", linked=True,
        received=10, acknowledged=10,
        last_data_age_s=0.1, rate_per_s=62.4, bytes_per_s=9000.0,
        latency_p50_ms=0.84, latency_p99_ms=2.13, latency_max_ms=5.0,
    )  # fmt: skip
    return replace(stream, **changes)  # type: ignore[arg-type]


def a_publisher(**changes: object) -> PublisherStats:
    publisher = PublisherStats(
        publisher="publisher-1", pid=11, node="n", unix_path="/run/p", tcp_address="127.0.0.1:1",
        connected=True, draining=False, streams=("usdm:btcusdt@trade", "usdm:ethusdt@trade"),
        rate_per_s=100.0, bytes_per_s=1.0, load=0.42, capacity_per_s=20000.0, queued=0, in_flight=0,
        batches=1, acknowledged=1, duplicates=0, errors=0, reconnects=0, ack_p50_ms=0.3, ack_p99_ms=0.9,
    )  # fmt: skip
    return replace(publisher, **changes)  # type: ignore[arg-type]


def a_status(*streams: StreamStats, **changes: object) -> RelayStatus:
    status = RelayStatus(
        config_version=1, controller_pid=9, uptime_s=42.0, delivery="jetstream",
        scale=ScaleStatus(mode=ScaleMode.AUTO, wanted=2, actual=2, min=1, max=6, reason="rate"),
        streams=streams or (a_stream(),), publishers=(a_publisher(),),
    )  # fmt: skip
    return replace(status, **changes)  # type: ignore[arg-type]


def line_of(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(name))


CHANNELS = ("trade", "ticker", "bookTicker", "depth20@100ms", "markPrice@1s")
TEN = [a_stream(f"{symbol}@{channel}") for symbol in ("btcusdt", "ethusdt") for channel in CHANNELS]


def test_a_stream_shows_state_rate_backlog_latency_and_loss() -> None:
    busy = a_stream(queued=1200, in_flight=34, backlog_age_s=2.5, lost=3)
    assert line_of(render(a_status(busy)), "btcusdt@trade").split() == [
        "btcusdt@trade", "live", "62", "1,234", "2.5", "s", "█" * 12, "0.84", "2.13", "3",
    ]  # fmt: skip


def test_critical_streams_share_a_line_and_without_them_there_is_none() -> None:
    ready = WarmLeg(node="n", pid=1, state=StreamState.LIVE, ready=True, remembered=3)
    streams = (
        a_stream("a@trade", critical=True, warm=ready, takeovers=2),
        a_stream("b@trade", critical=True, warm=replace(ready, ready=False)),
        a_stream("c@trade", critical=True),
    )
    line = line_of(render(a_status(*streams)), "critical")
    assert line == "critical: 1 of 3 with a standby that is ready, takeovers: 2"
    assert not [line for line in render(a_status()) if line.startswith("critical")]


def test_the_backlog_bars_share_one_scale() -> None:
    streams = a_stream("a@trade", queued=8000), a_stream("b@trade", queued=2000), a_stream("c@trade")
    lines = render(a_status(*streams))
    assert [line_of(lines, name).count("█") for name in ("a@", "b@", "c@")] == [12, 3, 0]


def test_a_publisher_shows_its_load_and_its_streams() -> None:
    line = line_of(render(a_status()), "publisher-1")
    assert line.count("█") == 5
    assert "42%" in line
    assert line.endswith("2: btcusdt@trade, ethusdt@trade")


def test_a_publisher_of_several_venues_names_them() -> None:
    mixed = a_publisher(streams=("usdm:btcusdt@trade", "spot:btcusdt@trade"))
    line = line_of(render(a_status(publishers=(mixed,))), "publisher-1")
    assert line.endswith("2: usdm:btcusdt@trade, spot:btcusdt@trade")


def test_a_publisher_without_nats_says_so() -> None:
    assert "no NATS" in line_of(render(a_status(publishers=(a_publisher(connected=False),))), "publisher-1")


def test_the_progress_bar_fills_and_names_what_happens() -> None:
    half = render(a_status(), progress=Progress(30, 60, "flooding btcusdt@trade"))[1]
    assert half == "█" * 20 + "░" * 20 + " 30 of 60 s  flooding btcusdt@trade"


def test_silent_actors_and_problems_are_listed() -> None:
    lines = render(a_status(unreachable=("ethusdt@trade",), problems=("NATS is slow",)))
    assert lines[-2:] == ["does not answer: ethusdt@trade", "problem: NATS is slow"]


def test_without_colour_there_is_no_escape_code() -> None:
    assert "\x1b" not in "".join(render(a_status(a_stream(lost=1)), progress=Progress(1, 2)))


def test_a_loss_is_red() -> None:
    line = line_of(render(a_status(a_stream(lost=7)), colour=True), "btcusdt@trade")
    assert f"{Tone.BAD}      7\x1b[0m" in line


def test_texts_from_outside_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in "".join(render(a_status(problems=("\x1b[2Jbye",)), colour=False))


def test_the_venue_is_named_where_there_are_several() -> None:
    lines = render(a_status(a_stream(), a_stream(venue="spot")))
    assert line_of(lines, "spot:btcusdt@trade")


@pytest.mark.parametrize("width", [80, 96, 100, 200])
def test_every_line_fits(width: int) -> None:
    lines = render(a_status(*TEN), width=width, progress=Progress(1, 60, "x" * 200))
    assert max(map(len, lines)) <= min(width, MAX_WIDTH)


def test_eighty_columns_keep_every_figure_and_the_whole_name() -> None:
    line = line_of(render(a_status(*TEN), width=80), "btcusdt@depth20@100ms")
    assert line.split() == ["btcusdt@depth20@100ms", "live", "62", "0", "0.0", "s", "0.84", "2.13", "0"]


@given(
    counts=st.integers(0, 10**12), seconds=st.floats(0, 10**6), ms=st.none() | st.floats(0, 10**6),
    name=st.text(min_size=1, max_size=60), width=st.integers(80, 100),
)  # fmt: skip
def test_it_fits_whatever_the_figures(
    counts: int, seconds: float, ms: float | None, name: str, width: int
) -> None:
    wild = a_stream(
        name, queued=counts, lost=counts, backlog_age_s=seconds, rate_per_s=seconds, latency_p99_ms=ms
    )
    for line in render(a_status(wild, publishers=()), width=width):
        assert len(line) <= width
        assert "\n" not in line


def test_the_summary_names_the_deepest_backlog() -> None:
    waiting = a_stream("ethusdt@trade", spilled=5, state=StreamState.CONNECTING)
    assert summary_line(a_status(a_stream(), waiting), width=120) == (
        "1/2 streams live, 125 msg/s, backlog 5 (most: ethusdt@trade), p99 2.13 ms, lost 0,"
        " 2 publishers (auto)"
    )


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (bar(0.0001, 4), "█░░░"),
        (bar(2.0, 4), "████"),
    ],
)
def test_a_bar_is_never_empty_and_never_too_long(shown: str, expected: str) -> None:
    assert shown == expected
