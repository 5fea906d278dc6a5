"""When JetStream streams are made and checked, and what is shown about it."""

from __future__ import annotations

from actors.controller.jetstream_keeper import CHECK_EVERY_S, RETRY_S, SHOW_FOR_S, JetStreamKeeper
from relay.config import Config, parse_config
from relay.errors import BusError
from tests.support.executors import AtOnce, OnDemand


def config(delivery: str = "jetstream") -> Config:
    text = f"nats: {{delivery: {delivery}}}\nshards: [btcusdt@trade]\n"
    return parse_config(text, {"HOME": "/home/somebody"})


class Nats:
    """Answers with the names in `made`, or refuses."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.refusal = ""
        self.asked = 0

    def __call__(self, nats, streams):
        self.asked += 1
        if self.refusal:
            raise BusError(self.refusal)
        return self.made


def ticks(keeper: JetStreamKeeper, since: int, until: int) -> list[str]:
    """What is shown at each second."""
    shown = []
    for second in range(since, until):
        keeper.tick(float(second))
        shown.append(keeper.problem)
    return shown


def test_nothing_is_asked_for_before_a_configuration_came_or_where_events_are_not_stored():
    nats = Nats()
    keeper = JetStreamKeeper(nats, AtOnce())
    ticks(keeper, 0, 30)
    keeper.want(config("core"))
    ticks(keeper, 30, 60)
    assert nats.asked == 0


def test_what_was_made_for_a_new_configuration_is_no_problem_and_later_it_is_one_for_a_while():
    nats = Nats()
    keeper = JetStreamKeeper(nats, AtOnce())
    nats.made = ["SLUICE_a"]
    keeper.want(config())
    assert set(ticks(keeper, 0, 5)) == {""}
    shown = ticks(keeper, 5, 5 + int(CHECK_EVERY_S) + 2)
    assert shown[-1].startswith("SLUICE_a was deleted or changed in NATS")
    nats.made = []
    gone = ticks(keeper, 20, 20 + int(SHOW_FOR_S + 2 * CHECK_EVERY_S))
    assert (gone[0], gone[-1]) == (shown[-1], "")
    keeper.want(config())
    nats.made = ["SLUICE_a"]
    assert set(ticks(keeper, 400, 405)) == {""}


def test_a_failure_is_shown_and_retried_and_takes_the_place_of_what_was_made_again():
    nats = Nats()
    keeper = JetStreamKeeper(nats, AtOnce())
    keeper.want(config())
    ticks(keeper, 0, 2)
    nats.made = ["SLUICE_a"]
    assert ticks(keeper, 2, 12)[-1]
    nats.refusal = "NATS is away"
    asked = nats.asked
    assert ticks(keeper, 12, 12 + int(CHECK_EVERY_S + 3 * RETRY_S))[-1] == "NATS is away"
    assert nats.asked - asked >= 2
    nats.refusal, nats.made = "", []
    assert ticks(keeper, 40, 50)[-1] == ""


def test_a_configuration_that_comes_during_a_check_is_looked_at_right_after_it():
    nats, executor = Nats(), OnDemand()
    keeper = JetStreamKeeper(nats, executor)
    keeper.want(config())
    keeper.tick(0.0)
    nats.made = ["SLUICE_a"]
    executor.run()
    keeper.want(config())
    keeper.tick(1.0)
    executor.run()
    keeper.tick(2.0)
    assert (nats.asked, keeper.problem) == (2, "")
