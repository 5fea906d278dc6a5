"""What a heartbeat says, when it goes out, and what becomes of one that cannot."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import orjson

from actors.controller.heartbeat import RETRY_S, HeartbeatSender
from relay.config import NatsConfig, parse_config
from relay.errors import BusError
from relay.model.stats import Health, RelayStatus, ScaleMode, ScaleStatus, StoppedStream
from relay.observability.heartbeat import EVERY_S, encoded
from tests.support.fakes import stream_stats
from tests.support.paths import ROOT

NATS = parse_config("shards: [btcusdt@trade]\n", {"HOME": "/home/somebody"}).nats
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


class AtOnce(Executor):
    """Runs what it is given before `submit` returns."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **more: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **more))
        except BusError as error:
            future.set_exception(error)
        return future


class Beats:
    """Keeps what was published, or refuses it."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.refusal = ""
        self.tries = 0

    def __call__(self, nats: NatsConfig, payload: bytes) -> None:
        self.tries += 1
        if self.refusal:
            raise BusError(self.refusal)
        self.payloads.append(payload)


def test_the_first_goes_out_at_once_and_then_one_every_half_minute():
    beats = Beats()
    heart = HeartbeatSender(beats, AtOnce())
    counts = []
    for second in range(int(2.5 * EVERY_S)):
        heart.tick(NATS, STATUS, float(second))
        counts.append(len(beats.payloads))
    assert counts == [1 + second // int(EVERY_S) for second in range(len(counts))]
    assert orjson.loads(beats.payloads[0])["configuration"] == 2


def test_one_that_cannot_go_out_is_told_tried_again_soon_and_logged_once(caplog):
    caplog.set_level(logging.INFO)
    beats = Beats()
    heart = HeartbeatSender(beats, AtOnce())
    beats.refusal = "NATS does not take the heartbeat"
    for second in range(10 * int(RETRY_S)):
        heart.tick(NATS, STATUS, float(second))
    assert heart.problem == beats.refusal
    assert beats.tries > 5
    beats.refusal = ""
    for second in range(10 * int(RETRY_S), 13 * int(RETRY_S)):
        heart.tick(NATS, STATUS, float(second))
    assert heart.problem == ""
    assert [record.message for record in caplog.records] == [
        "NATS does not take the heartbeat", "heartbeats go out again"
    ]  # fmt: skip
