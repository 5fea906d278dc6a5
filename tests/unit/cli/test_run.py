"""What `run` says while it watches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cli.run import StatusReporter
from cli.screen import Screen
from relay.errors import ClusterError
from relay.model.stats import RelayStatus, ScaleMode, ScaleStatus

STATUS = RelayStatus(
    config_version=1,
    controller_pid=1,
    uptime_s=1.0,
    delivery="jetstream",
    scale=ScaleStatus(mode=ScaleMode.AUTO, wanted=1, actual=1, min=1, max=2, reason=""),
    streams=(),
    publishers=(),
)


class FakeCluster:
    """Answers with what the test put into `answers`, in order."""

    def __init__(self, *answers: RelayStatus | ClusterError, runs: bool = True) -> None:
        self._answers = list(answers)
        self._runs = runs

    def check(self) -> None:
        """All is there."""

    def status(self) -> RelayStatus:
        answer = self._answers.pop(0)
        if isinstance(answer, ClusterError):
            raise answer
        return answer

    def running(self) -> bool:
        return self._runs


def looks(cluster: FakeCluster, count: int) -> list[bool]:
    watch = StatusReporter(cluster, Screen())  # type: ignore[arg-type]
    return [watch.is_over() for _ in range(count)]


def test_it_is_over_once_the_relay_is_gone() -> None:
    assert looks(FakeCluster(STATUS, ClusterError("no relay"), runs=False), 2) == [False, True]


def test_a_silent_controller_is_said_once_and_does_not_end_the_watch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    silent = ClusterError("the controller does not answer")
    assert looks(FakeCluster(silent, silent, silent), 3) == [False] * 3
    assert capsys.readouterr().out == "the controller does not answer; the streams go on meanwhile\n"


def test_the_same_status_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    looks(FakeCluster(STATUS, STATUS), 2)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_problem_is_said_once_while_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    behind = [replace(STATUS, problems=(f"usdm:btcusdt@trade is {seconds} s behind",)) for seconds in (5, 6)]
    looks(FakeCluster(STATUS, *behind, STATUS, behind[0]), 5)
    said = [line for line in capsys.readouterr().out.splitlines() if "behind" in line]
    assert said == ["usdm:btcusdt@trade is 5 s behind"] * 2
