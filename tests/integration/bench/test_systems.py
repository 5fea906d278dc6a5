"""The benchmark's own processes against each other: exchange, baseline, nats-server and consumer."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.child import Child
from bench.loads import STREAMS, calm
from bench.measure import measure
from bench.systems import SYSTEMS, Baseline
from bench.testbed import start_testbed
from relay.adapters.local.nats_server import EmbeddedNats


@pytest.mark.parametrize("slug", ["forwarder", "old"])
def test_a_calm_load_arrives_whole_and_the_counts_agree(slug: str, tmp_path: Path) -> None:
    with start_testbed(tmp_path / "testbed") as testbed, SYSTEMS[slug].start(testbed) as running:
        testbed.await_first_data(30, running.check)
        found = measure(testbed, running, calm(1), 0)
    assert set(found.streams) == set(STREAMS)
    assert all(counts.sent > 0 for counts in found.streams.values())
    assert (found.lost(STREAMS), found.duplicates, found.out_of_order, found.strange) == (0, 0, 0, 0)
    assert found.quantile_ms("all", 0.0) > 0
    assert found.cpu_us_per_message > 0
    assert found.pss_bytes > 0


def test_what_reaches_another_server_counts_as_lost(tmp_path: Path) -> None:
    with EmbeddedNats(tmp_path / "other") as other, start_testbed(tmp_path / "testbed") as testbed:
        arguments = ["--exchange", testbed.exchange_url, "--nats", other.url, *STREAMS]
        with Child("bench.forwarder", arguments, tmp_path / "forwarder.log") as child:
            testbed.offer(dict.fromkeys(STREAMS, 5.0))
            testbed.wait(lambda: all(testbed.sent().get(name) for name in STREAMS), 20)
            found = measure(testbed, Baseline("forwarder", child, reports=False), calm(0.5), 0)
    assert found.sent > 0
    assert found.lost(STREAMS) == found.late(STREAMS) == found.sent
    assert not found.held
