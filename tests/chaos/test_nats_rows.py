"""Rows of the fault table in which NATS, or the way to it, fails."""

from __future__ import annotations

import time

import pytest

from tests.chaos.rig import Rig
from tests.chaos.rows import Row


@pytest.mark.chaos(row=11, ci=True, fault="NATS restarted, then killed", figure="reconnect within 3 s")
def test_row_11_nats_restart(rig: Rig, row: Row) -> None:
    rig.start()
    rig.flows(200)
    for ended in (rig.nats.stop, rig.nats.kill):
        pid = rig.nats.pid
        ended()
        row.injected(f"nats-server {pid} ended by {ended.__name__}", not rig.nats.running)
        time.sleep(1.0)
        rig.nats.start()
        row.measured("first acknowledgement", rig.flows(1), "s", 3.0)
        rig.flows(200)
    rig.judge()
