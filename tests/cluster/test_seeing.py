"""A whole relay as those see it who run it: in Prometheus, on its page, in Ray, and from its heartbeat."""

from __future__ import annotations

import asyncio
import json
import math
import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.msg import Msg

from actors.stream.relay import LOG_EVERY_TICKS, TICK_S
from relay.adapters.nats.heartbeat import SUBJECT
from relay.observability.heartbeat import HEARTBEAT_INTERVAL_S
from tests.support.browser import browser
from tests.support.driver_processes import Command, ask, started
from tests.support.polling import until
from tests.support.prometheus import Prometheus
from tools.alert_rules import rules, rules_file
from tools.dashboards import sluice_dashboard

STREAMS = ("btcusdt@trade", "btcusdt@depth20@100ms", "ethusdt@bookTicker")
CONFIG = f"shards: [{', '.join(map(repr, STREAMS))}]\npublishers: {{max: 2}}\n"
# What Grafana puts in, for a query a few seconds after the start.
VARIABLES = {
    "$__rate_interval": "10s", "$__range": "10s", "$SessionName": ".+", "$Cluster": ".*", "$stream": ".+",
}  # fmt: skip
SCRAPES = 12
LOG_EVERY_S = LOG_EVERY_TICKS * TICK_S
COMPARISON = re.compile(r"(.+) (?:==|<|>) (.+)", re.DOTALL)

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@dataclass
class Whole:
    run: Command
    home: Path
    cluster: dict[str, Any]
    nats_url: str
    heartbeats: queue.Queue[bytes] = field(default_factory=queue.Queue)

    @property
    def status(self) -> Any:
        done = ask("status", "--json", home=self.home)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    home = tmp_path_factory.mktemp("home")
    config = home / "few.yaml"
    config.write_text(CONFIG)
    with started("run", "-c", str(config), "--simulate", "--embedded-nats", home=home) as run:
        server = re.search(r"nats://127\.0\.0\.1:\d+", run.read_until("NATS: "))
        assert server is not None
        run.read_until("3/3 streams live")
        (state,) = (home / "state" / "sluice").glob("cluster-*.json")
        one = Whole(run, home, json.loads(state.read_text()), server[0])
        with Listener(one.nats_url) as listener:
            one.heartbeats = listener.received
            yield one
        run.process.terminate()
        assert run.end() == 0
    assert run.left == set()


class Listener:
    """Keeps every heartbeat from now on."""

    def __init__(self, url: str) -> None:
        self.received: queue.Queue[bytes] = queue.Queue()
        self._url = url
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Listener:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    async def _listen(self) -> None:
        async def keep(message: Msg) -> None:
            self.received.put(message.data)

        self._client = await nats.connect(self._url)
        await self._client.subscribe(SUBJECT, cb=keep)
        await self._client.flush()

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="module")
def prometheus(whole: Whole) -> Iterator[Prometheus]:
    """After some scrapes of everything."""
    targets = Path(whole.cluster["run_directory"]) / "ray" / "prom_metrics_service_discovery.json"
    with Prometheus(whole.home / "prometheus", targets, rules_file()) as one:
        one.until(f"min (count_over_time(ray_sluice_publisher_batches_total[1m])) >= {SCRAPES}")
        yield one


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """(panel, query) with the variables put in."""
    for panel in sluice_dashboard()["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression


@pytest.mark.needs("prometheus")
def test_every_query_of_the_dashboards_gives_figures(prometheus: Prometheus) -> None:
    found = {(title, query): prometheus.ask(query) for title, query in dashboard_queries()}
    assert len(found) > 30
    without = [asked for asked, values in found.items() if not values or not all(map(math.isfinite, values))]
    assert without == []


@pytest.mark.needs("prometheus")
def test_every_alert_compares_what_is_there_and_a_calm_relay_raises_none(prometheus: Prometheus) -> None:
    for rule in rules():
        compared = COMPARISON.fullmatch(rule["expr"])
        if compared is None:
            absent = re.fullmatch(r"absent\((.+)\)", rule["expr"])
            assert absent and prometheus.ask(absent[1]), rule
        else:
            sides = [side for side in compared.groups() if not re.fullmatch(r"[\d.]+", side)]
            assert sides and all(prometheus.ask(side) for side in sides), rule
    judged = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(judged) == len(rules())
    assert {rule["health"] for rule in judged} == {"ok"}, judged
    assert [rule["name"] for rule in judged if rule["state"] == "firing"] == []


@pytest.mark.needs("prometheus")
def test_the_figures_in_prometheus_are_those_of_the_relay(prometheus: Prometheus, whole: Whole) -> None:
    received = "sum (ray_sluice_stream_received_events_total)"
    before = sum(one["received"] for one in whole.status["streams"])
    (shown,) = prometheus.until(f"{received} >= {before}")
    assert shown <= sum(one["received"] for one in whole.status["streams"])
    quantile = "histogram_quantile(0.5, sum by (le) (ray_sluice_stream_latency_seconds_bucket_total))"
    (median,) = prometheus.until(f"{quantile} > 0")
    assert median < 10
    counted = "sum (ray_sluice_stream_latency_seconds_bucket_total{le='+Inf'})"
    assert prometheus.until(f"{counted} > 0")


@pytest.mark.needs("chromium")
def test_the_page_shows_the_status_and_scales(whole: Whole) -> None:
    status = whole.status
    with browser() as tab:
        tab.open(status["page"]["url"])
        token = Path(status["page"]["token_file"]).read_text().strip()
        tab.run(f"sessionStorage.setItem('token', {json.dumps(token)})")
        tab.open(status["page"]["url"])
        tab.until("document.querySelectorAll('#streams tbody tr').length === 3")
        names = tab.run(
            "[...document.querySelectorAll('#streams tbody th > span')].map(one => one.textContent)"
        )
        assert names == [one["stream"] for one in status["streams"]]
        tab.until(
            "[...document.querySelectorAll('#streams .state')].every(one => one.textContent === 'live')"
        )
        tab.until("document.getElementById('rate').textContent !== '0.0'")
        tab.run("document.getElementById('count').value = 2")
        tab.run("document.querySelector('#scaling .main').click()")
        tab.until("document.querySelectorAll('#publishers tbody tr').length === 2")
        tab.until("document.getElementById('scale').innerText.startsWith('2 run, fixed')")
        scale = whole.status["scale"]
        assert (scale["wanted"], scale["actual"], scale["mode"]) == (2, 2, "fixed")
        tab.run("document.getElementById('automatic').click()")
        tab.until("document.getElementById('scale').innerText.includes('automatic')")
        assert whole.status["scale"]["mode"] == "auto"
        assert tab.complaints == []


def test_process_titles_and_logs_tell_of_each_stream(whole: Whole) -> None:
    def written() -> str:
        logs = (Path(whole.cluster["run_directory"]) / "ray").glob("session_*/logs/worker-*.err")
        return "\n".join(path.read_text() for path in logs)

    for one in whole.status["streams"]:
        title = Path(f"/proc/{one['pid']}/cmdline").read_text()
        assert title.startswith(f"ray::Stream {one['stream']} backlog=")
        assert f"live, was connecting: {one['stream']} live backlog=" in written()
        line = f"INFO actors.stream.relay: {one['stream']} live backlog="
        until(lambda line=line: line in written(), f"the status line of {one['stream']}", LOG_EVERY_S + 10.0)


def test_a_heartbeat_tells_the_totals(whole: Whole) -> None:
    """The last test: it may take half a minute from the start."""
    heartbeat = json.loads(whole.heartbeats.get(timeout=HEARTBEAT_INTERVAL_S + 10))
    assert heartbeat["ready"] is True
    assert heartbeat["streams"].keys() == {f"usdm:{name}" for name in STREAMS}
    for key, totals in heartbeat["streams"].items():
        held = totals["queued"] + totals["in_flight"] + totals["spilled"]
        ended = totals["acknowledged"] + totals["conflated"] + totals["dropped"] + totals["rejected"]
        assert totals["received"] == held + ended > 0, key
