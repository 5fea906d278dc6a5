"""What a heartbeat says."""

from __future__ import annotations

import re
from dataclasses import replace

import orjson

from relay.model.stats import Health, RelayStatus, ScaleMode, ScaleStatus, StoppedStream
from relay.observability.heartbeat import encoded
from tests.support.fakes import stream_stats
from tests.support.paths import ROOT

STATUS = RelayStatus(
    config_version=2, controller_pid=9, uptime_s=1.0, delivery="core", publishers=(),
    scale=ScaleStatus(mode=ScaleMode.AUTO, wanted=2, actual=1, min=1, max=2, reason=""),
    streams=(stream_stats("usdm:btcusdt@trade", received=13, queued=3, lost=1, gaps=1),),
    stopped=(StoppedStream(key="usdm:ethusdt@trade", who="Ann", at_ns=1),),
)  # fmt: skip


def test_it_tells_the_totals_of_each_stream_and_that_all_is_well():
    told = orjson.loads(encoded(STATUS, 1_700_000_000_000_000_000))
    assert told["at"] == "2023-11-14T22:13:20.000Z"
    assert (told["ready"], told["healthy"], told["reasons"], told["delivery"]) == (True, True, [], "core")
    assert told["publishers"] == {"mode": "auto", "wanted": 2, "actual": 1}
    assert told["stopped"] == ["usdm:ethusdt@trade"]
    totals = told["streams"]["usdm:btcusdt@trade"]
    assert (totals["state"], totals["epoch"], totals["lost"], totals["gaps"]) == ("live", 1, 1, 1)
    held = totals["queued"] + totals["in_flight"] + totals["spilled"]
    ended = totals["acknowledged"] + totals["conflated"] + totals["dropped"] + totals["rejected"]
    assert totals["received"] == held + ended


def test_it_looks_as_the_documentation_shows_it():
    text = (ROOT / "docs" / "seeing.md").read_text("utf-8")
    (example,) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shown, told = orjson.loads(example), orjson.loads(encoded(STATUS, 0))
    assert shown.keys() == told.keys()
    assert shown["publishers"].keys() == told["publishers"].keys()
    (stream,) = shown["streams"]
    assert shown["streams"][stream].keys() == told["streams"][stream].keys()


def test_it_tells_why_the_relay_is_not_ready():
    away = replace(STATUS, health=Health(not_ready=("no data",), unhealthy=("no data",)))
    told = orjson.loads(encoded(away, 0))
    assert (told["ready"], told["healthy"], told["reasons"]) == (False, False, ["no data"])
