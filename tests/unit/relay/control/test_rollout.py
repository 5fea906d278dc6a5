"""What `apply` waits for and tells."""

from __future__ import annotations

from dataclasses import replace

from cli.display.rollout import lines
from relay.config import parse_config
from relay.control.rollout import rollout_status
from relay.model.stats import RelayStatus, ScaleMode, ScaleStatus
from tests.support.fakes import publisher_stats, stream_stats

S_NS = 1_000_000_000
AT_NS = 1_700_000_000 * S_NS


def config(*names: str):
    return parse_config(
        "shards:\n" + "".join(f"- {{stream: {name}}}\n" for name in names), {"HOME": "/home/somebody"}
    )


def linked(key: str, **changes):
    return stream_stats(
        key,
        linked=True,
        publisher="p0",
        subscribed_at_ns=AT_NS,
        first_data_at_ns=AT_NS + S_NS // 4,
        **changes,
    )


def status(*streams, **changes) -> RelayStatus:
    one = RelayStatus(
        config_version=1, controller_pid=9, uptime_s=1.0, delivery="jetstream", streams=streams,
        scale=ScaleStatus(mode=ScaleMode.AUTO, wanted=1, actual=1, min=1, max=2, reason="idle"),
        publishers=(publisher_stats("p0"),),
    )  # fmt: skip
    return replace(one, **changes)


BTC, ETH, SOL = (linked(f"usdm:{name}usdt@trade") for name in ("btc", "eth", "sol"))
BEFORE = status(BTC, ETH)
WANTED = config("btcusdt@trade", "solusdt@trade")


def waiting(now: RelayStatus) -> tuple[str, ...]:
    return rollout_status(BEFORE, now, WANTED).waiting


def test_a_controller_that_has_not_looked_yet_is_waited_for():
    assert waiting(BEFORE) == ("the controller",)


def test_a_new_stream_is_waited_for_until_it_has_data_and_a_publisher():
    def now(**changes):
        return status(BTC, replace(SOL, **changes), config_version=2)

    assert waiting(status(BTC, config_version=2)) == ("usdm:solusdt@trade to be subscribed",)
    assert waiting(now(subscribed_at_ns=0, first_data_at_ns=0)) == ("usdm:solusdt@trade to be subscribed",)
    assert waiting(now(first_data_at_ns=0)) == ("first data of usdm:solusdt@trade",)
    assert waiting(now(linked=False)) == ("a publisher for usdm:solusdt@trade",)
    assert waiting(now()) == ()


def test_a_stream_that_may_be_silent_for_days_need_not_have_data():
    quiet = linked("usdm:btcusdt@forceOrder")
    now = status(replace(quiet, first_data_at_ns=0), config_version=2)
    assert rollout_status(status(BTC), now, config("btcusdt@forceOrder")).waiting == ()


def test_what_the_controller_has_under_way_and_the_pool_are_waited_for():
    growing = replace(BEFORE.scale, wanted=2)
    now = status(BTC, SOL, config_version=2, scale=growing, pending=("stream usdm:ethusdt@trade",))
    assert waiting(now) == ("stream usdm:ethusdt@trade", "publishers: 1 of 2 publishers (auto)")


def test_a_change_is_told_stream_by_stream_with_the_publishers_before_and_after():
    after = replace(BEFORE.scale, wanted=2, actual=2, reason="rate")
    left = replace(ETH, acknowledged=1234)
    now = status(BTC, SOL, config_version=2, scale=after, ended=(left,))
    assert list(lines(rollout_status(BEFORE, now, WANTED))) == [
        "usdm:ethusdt@trade: drained; 1,234 events acknowledged, none left",
        "usdm:solusdt@trade: subscribed at 22:13:20.000Z, first data at 22:13:20.250Z, 0.25 s later",
        "1 stream not touched",
        "before: 1 publisher (auto)",
        "after:  2 publishers (auto): rate",
    ]


def test_a_stream_made_anew_is_told_as_well():
    now = status(BTC, replace(ETH, epoch=2), config_version=2)
    told = list(lines(rollout_status(BEFORE, now, config("btcusdt@trade", "ethusdt@trade"))))
    assert told[0].startswith("usdm:ethusdt@trade: subscribed at")


def test_what_a_drain_left_is_told():
    now = status(BTC, SOL, config_version=2, ended=(replace(ETH, spilled=7),))
    assert "7 events are left" in next(iter(lines(rollout_status(BEFORE, now, WANTED))))
    silent = status(BTC, SOL, config_version=2)
    assert "no final figures" in next(iter(lines(rollout_status(BEFORE, silent, WANTED))))
