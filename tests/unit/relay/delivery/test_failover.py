"""Which publisher a stream tries, while some of them fail."""

from __future__ import annotations

from relay.delivery.failover import AVOID_S, AVOID_SILENT_S, Failover
from relay.model.assignment import Assignment, PublisherEndpoint


def assignment(assigned: str | None, *names: str) -> Assignment:
    return Assignment(version=1, publisher=assigned, endpoints=tuple(endpoint(name) for name in names))


def endpoint(name: str) -> PublisherEndpoint:
    return PublisherEndpoint(publisher=name, node="n", unix_path=f"/run/{name}", tcp_address="")


def chosen(failover: Failover, offered: Assignment | None, now: float) -> str | None:
    found = failover.choose(offered, now)
    return found.publisher if found else None


def test_nobody_to_try_without_an_assignment_or_publishers() -> None:
    assert chosen(Failover("s"), None, 0.0) is None
    assert chosen(Failover("s"), assignment(None), 0.0) is None


def test_the_assigned_publisher_comes_first() -> None:
    assert chosen(Failover("s"), assignment("p1", "p0", "p1", "p2"), 0.0) == "p1"


def test_a_failed_publisher_is_avoided_for_a_while() -> None:
    failover = Failover("s")
    failover.failed("p1", 10.0)
    assert chosen(failover, assignment("p1", "p0", "p1"), 10.0) == "p0"
    assert chosen(failover, assignment("p1", "p0", "p1"), 10.0 + AVOID_S) == "p1"


def test_a_silent_publisher_is_avoided_for_longer() -> None:
    failover = Failover("s")
    failover.failed("p1", 10.0, silent=True)
    assert chosen(failover, assignment("p1", "p0", "p1"), 10.0 + AVOID_S) == "p0"
    assert chosen(failover, assignment("p1", "p0", "p1"), 10.0 + AVOID_SILENT_S) == "p1"


def test_failures_in_a_row_double_the_time_and_success_forgets_them() -> None:
    failover = Failover("s")
    failover.failed("p1", 10.0)
    failover.failed("p1", 11.0)
    assert chosen(failover, assignment("p1", "p0", "p1"), 12.5) == "p0"
    failover.worked("p1")
    assert chosen(failover, assignment("p1", "p0", "p1"), 12.5) == "p1"


def test_with_everybody_failing_the_one_to_recover_first_is_tried_at_once() -> None:
    failover = Failover("s")
    failover.failed("p0", 10.0, silent=True)
    failover.failed("p1", 10.0)
    assert chosen(failover, assignment("p0", "p0", "p1"), 10.0) == "p1"


def test_streams_of_a_dead_publisher_spread_over_the_others() -> None:
    offered = assignment("p0", *(f"p{n}" for n in range(4)))
    used = set()
    for stream in range(20):
        failover = Failover(f"usdm:s{stream}")
        failover.failed("p0", 0.0)
        used.add(chosen(failover, offered, 0.0))
    assert used == {"p1", "p2", "p3"}
