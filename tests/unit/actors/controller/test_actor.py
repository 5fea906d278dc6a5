"""The controller's face: what people may ask of it while its thread works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from actors.controller.actor import Controller
from relay.adapters.nats.login import login_proofs
from relay.config import parse_config
from relay.errors import BusError, ClusterError, ConfigError, UsageError
from tests.support.fakes import FakeCluster
from tests.support.hosts import PlainHost
from tests.support.polling import until_status

DEADLINE_S = 10.0


def config(*names: str, extra: str = ""):
    shards = "".join(f"- {{stream: {name}}}\n" for name in names)
    return parse_config(f"page: off\nshards:\n{shards}{extra}", {"HOME": "/home/somebody"})


TWO = config("btcusdt@trade", "ethusdt@trade")
THREE = config("btcusdt@trade", "ethusdt@trade", "solusdt@trade")


@dataclass
class Rig:
    cluster: FakeCluster
    host: PlainHost
    controller: Controller

    def until(self, reached) -> None:
        until_status(self.controller.status, reached, "the status", DEADLINE_S, pause_s=0.01)

    def restart(self, **more) -> None:
        self.controller.stop()
        self.controller = start(self.cluster, self.host, **more)


def start(cluster: FakeCluster, host: PlainHost, **more) -> Controller:
    """Without NATS."""
    quiet = {"ensure": lambda nats, streams: (), "beat": lambda nats, payload: None}
    return Controller(cluster, host, **quiet | more)


@pytest.fixture
def rig() -> Iterator[Rig]:
    cluster, host = FakeCluster(), PlainHost()
    one = Rig(cluster, host, start(cluster, host))
    yield one
    one.controller.stop()
    host.close()


def served(count: int):
    return lambda status: sum(stream.publisher is not None for stream in status.streams) == count


def test_without_a_configuration_it_waits(rig):
    with pytest.raises(ClusterError):
        rig.controller.status()
    with pytest.raises(ClusterError):
        rig.controller.scale(2, "somebody")
    assert rig.cluster.actors() == frozenset()


def test_the_first_configuration_starts_the_relay(rig):
    assert rig.controller.apply(TWO) == ()
    rig.until(served(2))
    assert rig.controller.status().config_version == 1


def test_applying_the_same_again_changes_nothing(rig):
    rig.controller.apply(TWO)
    rig.until(served(2))
    assert rig.controller.apply(config("btcusdt@trade", "ethusdt@trade")) == ()
    assert rig.controller.status().config_version == 1


def test_applying_another_one_answers_with_the_differences(rig):
    rig.controller.apply(TWO)
    assert rig.controller.apply(config("ethusdt@trade", "solusdt@trade")) == (
        "btcusdt@trade is removed",
        "solusdt@trade is added",
    )
    rig.until(lambda status: status.config_version == 2 and len(status.streams) == 2)
    assert {stream.stream for stream in rig.controller.status().streams} == {"ethusdt@trade", "solusdt@trade"}


@pytest.mark.parametrize("count", [0, 3, -1])
def test_a_number_of_publishers_that_cannot_be_is_refused(rig, count):
    rig.controller.apply(TWO)
    with pytest.raises(UsageError, match="1 to 2"):
        rig.controller.scale(count, "somebody")


def test_scaling_says_who_did_it_and_holds_until_auto(rig):
    rig.controller.apply(THREE)
    answer = rig.controller.scale(3, "ann@desk")
    assert (answer.mode, answer.wanted) == ("fixed", 3)
    rig.until(lambda status: status.scale.actual == 3)
    assert "ann@desk" in rig.controller.status().scale.reason
    assert rig.controller.scale(None, "ann@desk").mode == "auto"


def test_a_new_incarnation_goes_on_with_everything(rig):
    rig.controller.apply(THREE)
    rig.controller.scale(2, "ann@desk")
    rig.until(lambda status: status.scale.actual == 2 and served(3)(status))
    created = rig.cluster.created.copy()
    rig.restart()
    rig.until(served(3))
    status = rig.controller.status()
    assert (status.scale.mode, status.scale.wanted, status.config_version) == ("fixed", 2, 1)
    assert rig.controller.apply(THREE) == ()
    assert rig.cluster.created == created


def test_a_number_in_the_file_counts_when_it_changes(rig):
    rig.controller.apply(THREE)
    rig.controller.scale(2, "ann@desk")
    names = ("btcusdt@trade", "ethusdt@trade", "solusdt@trade")
    rig.controller.apply(config(*names, extra="queue: {max_messages: 9}\n"))
    rig.until(lambda status: status.config_version == 2)
    assert rig.controller.status().scale.mode == "fixed"
    rig.controller.apply(config(*names, extra="publishers: {scale: 3}\n"))
    rig.until(lambda status: status.scale.actual == 3)
    assert "the configuration" in rig.controller.status().scale.reason


def test_draining_removes_everything_and_nothing_comes_back(rig):
    rig.controller.apply(TWO)
    rig.until(served(2))
    ended = rig.controller.drain(2.0)
    assert {stream.stream for stream in ended.streams} == {"btcusdt@trade", "ethusdt@trade"}
    assert ended.silent == ()
    with pytest.raises(ClusterError, match="taken down"):
        rig.controller.apply(TWO)
    rig.restart()
    assert rig.cluster.actors() == frozenset()


def test_actors_without_a_configuration_can_be_drained(rig):
    rig.controller.apply(TWO)
    rig.until(served(2))
    rig.cluster.facts.clear()
    rig.restart()
    assert len(rig.controller.drain(2.0).streams) == 2
    assert rig.cluster.actors() == frozenset()


def test_trouble_with_the_cluster_is_shown_and_passes(rig, monkeypatch):
    rig.controller.apply(TWO)
    rig.until(served(2))
    looked = rig.cluster.actors

    def broken():
        raise ClusterError("the cluster's head does not answer")

    monkeypatch.setattr(rig.cluster, "actors", broken)
    rig.until(
        lambda status: status.problems == ("the controller is stuck: the cluster's head does not answer",)
    )
    monkeypatch.setattr(rig.cluster, "actors", looked)
    rig.until(lambda status: status.problems == ())


def test_what_two_find_out_is_one_problem():
    def away(*_):
        raise BusError("cannot connect to NATS")

    one = Rig(cluster := FakeCluster(), host := PlainHost(), start(cluster, host, ensure=away, beat=away))
    one.controller.apply(TWO)
    one.until(lambda status: status.problems == ("cannot connect to NATS",))
    one.controller.stop()
    one.controller = start(cluster, host, beat=away)
    one.until(lambda status: status.problems == ("cannot connect to NATS",))
    one.controller.stop()
    host.close()


def test_a_defect_ends_the_process_for_ray_to_start_another(monkeypatch):
    cluster, host, ended = FakeCluster(), PlainHost(), threading.Event()
    monkeypatch.setattr(cluster, "actors", lambda: 1 / 0)
    controller = start(cluster, host, end=lambda code: ended.set())
    controller.apply(TWO)
    assert ended.wait(DEADLINE_S)
    controller.stop()
    host.close()


def locked():
    """With a password from the environment."""
    text = "nats: {user: u, password: '${SLUICE_TEST_PASSWORD}'}\nshards: [btcusdt@trade]\n"
    return parse_config(text, {"HOME": "/home/somebody", "SLUICE_TEST_PASSWORD": "canary"})


def test_a_secret_that_is_another_one_here_changes_nothing(rig, monkeypatch):
    monkeypatch.setenv("SLUICE_TEST_PASSWORD", "canary")
    proofs = login_proofs(locked().nats, rig.host.secret)
    monkeypatch.setenv("SLUICE_TEST_PASSWORD", "another canary")
    with pytest.raises(
        ConfigError, match=r"^nats\.password: .* another value where the relay runs"
    ) as refused:
        rig.controller.apply(locked(), proofs)
    assert "canary" not in str(refused.value)
    monkeypatch.delenv("SLUICE_TEST_PASSWORD")
    with pytest.raises(
        ConfigError, match="SLUICE_TEST_PASSWORD is not set; set the variable for the Ray nodes"
    ):
        rig.controller.apply(locked(), proofs)
    assert rig.cluster.facts == {}


def test_the_same_secret_here_is_taken_and_not_kept(rig, monkeypatch):
    monkeypatch.setenv("SLUICE_TEST_PASSWORD", "canary")
    rig.controller.apply(locked(), login_proofs(locked().nats, rig.host.secret))
    rig.until(served(1))
    assert b"${SLUICE_TEST_PASSWORD}" in rig.cluster.facts["config"]
    assert not any(b"canary" in value for value in rig.cluster.facts.values())


def test_who_cannot_look_at_the_relay_says_that_its_figures_are_old(rig):
    rig.controller.apply(TWO)
    rig.until(served(2))
    assert rig.controller.status().problems == ()
    rig.restart(blind_s=0.3)
    rig.until(served(2))
    may_look = threading.Event()
    look = rig.cluster.observe
    # As Ray's calls do while its head does not answer.
    rig.cluster.observe = lambda *arguments: may_look.wait(DEADLINE_S) and look(*arguments)
    try:
        rig.until(lambda status: any("has not seen the relay for" in one for one in status.problems))
    finally:
        may_look.set()
    rig.until(lambda status: status.problems == ())
