"""A controller with its status page, whose cluster is a fake, and clients that ask it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actors.controller.actor import Controller
from relay.config import Config, parse_config
from relay.model.actors import ActorId, Role
from relay.model.stats import RelayStatus
from tests.support.fakes import FakeCluster
from tests.support.hosts import PlainHost
from tests.support.polling import until, until_status

TOKEN = "a-token-of-the-tests"
DEADLINE_S = 10.0


STREAMS = ("btcusdt@trade", "ethusdt@trade")


def config(page: str, streams: Iterable[str] = STREAMS) -> Config:
    names = tuple(streams)
    most = min(2, len(names))
    text = f"page: {page}\npublishers: {{max: {most}}}\nshards: [{', '.join(map(repr, names))}]\n"
    return parse_config(text, {"HOME": "/home/u"})


@dataclass
class Reply:
    status: int
    body: bytes
    headers: http.client.HTTPMessage

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    controller: Controller
    cluster: FakeCluster
    token_file: Path

    @property
    def url(self) -> str:
        page = self.controller.status().page
        assert page is not None
        return page.url

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, fields)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(), answer.headers)
        finally:
            connection.close()

    def order(self, path: str, body: object, **headers: str) -> Reply:
        usual = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "application/json"}
        return self.ask("POST", path, json.dumps(body).encode(), **{**usual, **headers})

    def history_until(self, after: int, met: Callable[[Any], object]) -> Any:
        def found() -> Any:
            history = self.ask("GET", f"/history.json?after={after}").json
            return history if met(history) else None

        return until(found, "it is in the history", DEADLINE_S, pause_s=0.01)

    def until(self, met: Callable[[RelayStatus], object], what: str) -> RelayStatus:
        return until_status(self.controller.status, met, what, DEADLINE_S, pause_s=0.01)


class PageRig:
    """Controllers with pages, for one test."""

    def __init__(self, directory: Path) -> None:
        self.token_file = directory / "token"
        self.token_file.write_text(f"{TOKEN}\n")
        self._hosts: list[PlainHost] = []
        self._running: list[Controller] = []

    def serve(
        self,
        page: str = "{{listen: '127.0.0.1:0', token_file: {token_file}}}",
        streams: Iterable[str] = STREAMS,
    ) -> Served:
        """A relay at peace."""
        served = self.start(FakeCluster())
        served.controller.apply(config(page.format(token_file=self.token_file), streams), who="the test")
        count = len(tuple(streams))
        served.until(lambda status: len(status.streams) == count and status.publishers, "all streams")
        return served

    def start_stuck(self) -> Served:
        """Its actors never come up."""
        cluster = FakeCluster()
        cluster.stuck = {ActorId(Role.STREAM, f"usdm:{name}") for name in STREAMS} | {
            ActorId(Role.PUBLISHER, "p0")
        }
        served = self.start(cluster)
        served.controller.apply(config("{listen: '127.0.0.1:0'}"))
        served.until(lambda status: status.page, "the page")
        return served

    def start(self, cluster: FakeCluster) -> Served:
        """Adopts what the cluster holds."""
        host = PlainHost()
        self._hosts.append(host)
        controller = Controller(
            cluster, host, ensure=lambda nats, streams: (), beat=lambda nats, payload: None
        )
        self._running.append(controller)
        return Served(controller, cluster, self.token_file)

    def close(self) -> None:
        for controller in self._running:
            controller.stop()
        for host in self._hosts:
            host.close()
