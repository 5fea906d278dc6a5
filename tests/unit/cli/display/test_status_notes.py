"""What `status` says of critical streams below its table."""

from __future__ import annotations

from dataclasses import replace

from cli.display.status_notes import status_notes
from relay.model.stats import RelayStatus, ScaleMode, ScaleStatus, StreamStats
from tests.support.fakes import stream_stats, warm_stats

KEY = "usdm:btcusdt@trade"
HOT = stream_stats(KEY, critical=True, node="0123456789abcdef")
WARM = warm_stats(KEY, node="fedcba9876543210").warm


def said(*streams: StreamStats) -> list[str]:
    status = RelayStatus(
        config_version=1, controller_pid=9, uptime_s=42.0, delivery="jetstream",
        scale=ScaleStatus(mode=ScaleMode.AUTO, wanted=2, actual=2, min=1, max=6, reason="rate"),
        streams=streams, publishers=(),
    )  # fmt: skip
    return [line for line in status_notes(status) if line.startswith("critical")]


def test_both_legs_are_named_with_their_places() -> None:
    assert said(replace(HOT, warm=WARM, takeovers=1)) == [
        "critical: usdm:btcusdt@trade is active on node 01234567 (pid 10),"
        " standby on node fedcba98 (pid 12) and ready, 3 events remembered, 1 takeover"
    ]
    assert "and not ready yet" in said(replace(HOT, warm=replace(WARM, ready=False)))[0]


def test_a_missing_leg_is_said_and_other_streams_are_not() -> None:
    assert said(HOT, stream_stats("usdm:ethusdt@trade")) == [
        "critical: usdm:btcusdt@trade is active on node 01234567 (pid 10), with no standby"
    ]
