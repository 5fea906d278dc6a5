"""Who does not answer, and is nevertheless not replaced at once."""

from __future__ import annotations

import pytest

from relay.control.observation import ClusterView
from relay.control.reconcile import UNRESPONSIVE_LIMIT_S
from relay.control.replacement_grace import MASS_SILENCE_GRACE_S, STILL_PUBLISHING_GRACE_S, replacement_grace
from relay.model.actors import ActorId, Role, Silence
from relay.ports import Observation
from tests.support.fakes import publisher_stats, stream_stats

KEY, EPOCH = "usdm:btcusdt@trade", 7
STREAM, P0, P1 = ActorId(Role.STREAM, KEY), ActorId(Role.PUBLISHER, "p0"), ActorId(Role.PUBLISHER, "p1")


def given_up_after_s(**looks_of: Observation) -> float:
    """When the stream's muteness, by looks once a second, counts as too long; the others look as given."""
    watch, now = ClusterView(), 100.0
    others = {"p0": P0, "p1": P1}
    looks = {others[name]: look for name, look in looks_of.items()}
    answered = {name: publisher_stats(name.key) for name in looks}
    watch.update({**answered, STREAM: stream_stats(KEY, epoch=EPOCH)}, now)
    for second in range(1, 200):
        now += 1.0
        watch.update({**looks, STREAM: Silence.UNRESPONSIVE}, now)
        if watch.observed({}, {}, {}).streams[KEY].unresponsive_s >= UNRESPONSIVE_LIMIT_S:
            return float(second)
    raise AssertionError("it is never given up")


def test_a_stream_that_nobody_hears_is_given_up_soon() -> None:
    assert given_up_after_s(p0=publisher_stats("p0")) <= UNRESPONSIVE_LIMIT_S + 1


def test_a_stream_whose_events_come_is_waited_for_but_not_for_ever() -> None:
    after_s = given_up_after_s(p0=publisher_stats("p0", lively={KEY: EPOCH}))
    assert STILL_PUBLISHING_GRACE_S <= after_s <= STILL_PUBLISHING_GRACE_S + UNRESPONSIVE_LIMIT_S + 1


def test_events_of_another_incarnation_excuse_nobody() -> None:
    assert given_up_after_s(p0=publisher_stats("p0", lively={KEY: EPOCH + 1})) <= UNRESPONSIVE_LIMIT_S + 1


def test_where_most_are_mute_everybody_is_waited_for_somewhat_longer() -> None:
    after_s = given_up_after_s(p0=Silence.UNRESPONSIVE, p1=Silence.UNRESPONSIVE)
    assert MASS_SILENCE_GRACE_S <= after_s <= MASS_SILENCE_GRACE_S + UNRESPONSIVE_LIMIT_S + 1


def test_an_actor_that_answers_again_has_all_its_excuses_again() -> None:
    watch = ClusterView()
    unresponsive = {P0: publisher_stats("p0", lively={KEY: EPOCH}), STREAM: Silence.UNRESPONSIVE}
    now = 100.0
    for _ in range(3):
        watch.update({P0: publisher_stats("p0"), STREAM: stream_stats(KEY, epoch=EPOCH)}, now)
        for _ in range(int(STILL_PUBLISHING_GRACE_S) - 1):
            now += 1.0
            watch.update(unresponsive, now)
            assert watch.observed({}, {}, {}).streams[KEY].unresponsive_s < UNRESPONSIVE_LIMIT_S


@pytest.mark.parametrize(("mute", "others", "crowd"), [(2, 0, False), (3, 2, True), (3, 3, False)])
def test_a_crowd_is_more_than_half_and_more_than_two(mute: int, others: int, crowd: bool) -> None:
    looks: dict[ActorId, Observation] = {
        ActorId(Role.STREAM, f"m{n}"): Silence.UNRESPONSIVE for n in range(mute)
    }
    looks |= {ActorId(Role.PUBLISHER, f"p{n}"): publisher_stats(f"p{n}") for n in range(others)}
    assert replacement_grace(looks).mass_silence is crowd
