"""When a heartbeat is published, and what becomes of one that cannot be."""

from __future__ import annotations

import logging

import orjson

from actors.controller.heartbeat import RETRY_S, HeartbeatSender
from relay.config import NatsConfig, parse_config
from relay.errors import BusError
from relay.model.stats import RelayStatus, ScaleMode, ScaleStatus
from relay.observability.heartbeat import HEARTBEAT_INTERVAL_S
from tests.support.executors import AtOnce

NATS = parse_config("shards: [btcusdt@trade]\n", {"HOME": "/home/somebody"}).nats
STATUS = RelayStatus(
    config_version=2, controller_pid=9, uptime_s=1.0, delivery="core", publishers=(), streams=(),
    scale=ScaleStatus(mode=ScaleMode.AUTO, wanted=2, actual=1, min=1, max=2, reason=""),
)  # fmt: skip


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
    sender = HeartbeatSender(beats, AtOnce())
    counts = []
    for second in range(int(2.5 * HEARTBEAT_INTERVAL_S)):
        sender.tick(NATS, STATUS, float(second))
        counts.append(len(beats.payloads))
    assert counts == [1 + second // int(HEARTBEAT_INTERVAL_S) for second in range(len(counts))]
    assert orjson.loads(beats.payloads[0])["configuration"] == 2


def test_one_that_cannot_go_out_is_told_tried_again_soon_and_logged_once(caplog):
    caplog.set_level(logging.INFO)
    beats = Beats()
    sender = HeartbeatSender(beats, AtOnce())
    beats.refusal = "NATS does not accept the heartbeat"
    for second in range(10 * int(RETRY_S)):
        sender.tick(NATS, STATUS, float(second))
    assert sender.problem == beats.refusal
    assert beats.tries > 5
    beats.refusal = ""
    for second in range(10 * int(RETRY_S), 13 * int(RETRY_S)):
        sender.tick(NATS, STATUS, float(second))
    assert sender.problem == ""
    assert [record.message for record in caplog.records] == [
        "NATS does not accept the heartbeat", "heartbeats go out again"
    ]  # fmt: skip
