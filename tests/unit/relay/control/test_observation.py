"""What the controller makes of publishers that are slow or cut off, and of streams in trouble."""

from __future__ import annotations

from relay.control.observation import SLOW_FOR_S, SLOW_LIMIT_S, ClusterView
from relay.model.actors import ActorId, Role
from tests.support.fakes import publisher_stats, stream_stats

STREAM = "usdm:btcusdt@trade"


class Looks:
    """A look every second at these publishers."""

    def __init__(self) -> None:
        self.watch = ClusterView()
        self.now = 1_000.0

    def see(self, seconds: float, stream: dict[str, object] | None = None, **waiting_ms: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1.0
            looks = {
                ActorId(Role.PUBLISHER, name): publisher_stats(name, waiting_ms=ms)
                for name, ms in waiting_ms.items()
            }
            stats = stream_stats(STREAM, **(stream or {}))
            self.watch.update({**looks, ActorId(Role.STREAM, STREAM): stats}, self.now)


def test_a_publisher_that_alone_is_slow_gets_no_streams_for_a_while() -> None:
    looks = Looks()
    looks.see(SLOW_LIMIT_S + 1, p0=2_000.0, p1=3.0, p2=5.0)
    assert set(looks.watch.endpoints()) == {"p1", "p2"}
    assert "publisher p0 has a slow way to NATS" in looks.watch.problems()[0]
    looks.see(SLOW_FOR_S + 1, p0=0.0, p1=3.0, p2=5.0)
    assert set(looks.watch.endpoints()) == {"p0", "p1", "p2"}
    assert looks.watch.problems() == []


def test_a_short_wait_is_nothing_and_neither_is_one_that_all_share() -> None:
    looks = Looks()
    looks.see(2, p0=2_000.0, p1=3.0)
    looks.see(20, p0=2_000.0, p1=1_500.0)
    looks.see(20, p0=90.0, p1=3.0)
    assert set(looks.watch.endpoints()) == {"p0", "p1"}


def test_a_connection_made_anew_now_and_then_does_not_hide_a_slow_way() -> None:
    looks = Looks()
    for _ in range(4):
        looks.see(2, p0=1_900.0, p1=3.0)
        looks.see(1, p0=0.0, p1=3.0)
    assert set(looks.watch.endpoints()) == {"p1"}


def test_people_hear_what_a_stream_says_is_to_be_mended_and_who_is_behind() -> None:
    looks = Looks()
    looks.see(1, {"problem": "journal /j is full"}, p0=0.0)
    assert looks.watch.problems() == ["journal /j is full"]
    looks.see(1, {"backlog_age_s": 7.2, "publisher": "p0"}, p0=0.0)
    assert looks.watch.problems() == [f"{STREAM} is 7 s behind"]
