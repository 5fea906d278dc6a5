"""The scaling decision, played against a model of the relay with one look a second."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.control.autoscale import (
    DOWN_AFTER_S,
    DOWN_AFTER_UP_S,
    PublisherLoad,
    ScaleSettings,
    ScaleSnapshot,
    ScaleState,
    decide,
)

CAPACITY = 10_000.0
SETTINGS = ScaleSettings(minimum=1, maximum=6)


@dataclass
class Model:
    """Publishers of one capacity that start within a tick; what they cannot take becomes backlog."""

    state: ScaleState = field(default_factory=lambda: ScaleState(wanted=1, capacity_per_s=CAPACITY))
    settings: ScaleSettings = SETTINGS
    streams: int = 10
    backlog: float = 0.0
    now: float = 0.0
    history: list[int] = field(default_factory=list)
    reason: str = ""

    def snapshot(self, rate: float, served: float, **extra: Any) -> ScaleSnapshot:
        count = self.state.wanted
        each = PublisherLoad(
            rate_per_s=served / count, load=served / count / CAPACITY, ack_p99_ms=2.0, connected=True
        )
        figures: dict[str, Any] = {
            "streams": self.streams,
            "input_rate_per_s": rate,
            "backlog": int(self.backlog),
            "backlog_age_s": self.backlog / served if served else 0.0,
            "publishers": (each,) * count,
        }
        return ScaleSnapshot(**{**figures, **extra})

    def tick(self, rate: float, **extra: Any) -> int:
        served = min(self.backlog + rate, CAPACITY * self.state.wanted)
        self.backlog += rate - served
        decision, self.state = decide(
            self.settings, self.snapshot(rate, served, **extra), self.state, self.now
        )
        self.now += 1.0
        self.reason = decision.reason
        self.history.append(decision.wanted)
        return decision.wanted

    def play(self, rates: Iterable[float], **extra: Any) -> list[int]:
        return [self.tick(rate, **extra) for rate in rates]


def changes(history: list[int]) -> list[int]:
    return [after - before for before, after in pairwise(history) if after != before]


def test_a_step_is_answered_within_seconds_in_few_jumps_and_drained():
    model = Model()
    model.play([700] * 10)
    up = model.play([30_000] * 60)
    assert up[4] >= 4
    assert max(up) <= 6
    assert model.backlog == 0
    assert all(change > 0 for change in changes(up))


def test_a_spike_of_a_tick_that_leaves_no_backlog_changes_nothing():
    model = Model()
    assert set(model.play([700] * 20 + [9_500] + [700] * 20)) == {1}


def test_a_sawtooth_faster_than_the_quiet_period_never_scales_down():
    model = Model()
    tooth = [5_000 + 1_000 * step for step in range(20)]
    history = model.play(tooth * 10)
    assert all(change > 0 for change in changes(history))


def test_silence_shrinks_to_the_minimum_one_at_a_time():
    model = Model(state=ScaleState(wanted=6, capacity_per_s=CAPACITY))
    history = model.play([0] * 400)
    assert changes(history) == [-1] * 5
    assert history[-1] == 1
    assert history.index(5) == DOWN_AFTER_S
    assert history.index(4) - history.index(5) == DOWN_AFTER_S


@pytest.mark.parametrize("hindrance", ["unreachable", "starting", "leaving"])
def test_no_publisher_leaves_while_the_picture_is_incomplete_or_another_moves(hindrance):
    model = Model(state=ScaleState(wanted=4, capacity_per_s=CAPACITY))
    assert set(model.play([100] * 200, **{hindrance: 1})) == {4}


def test_stale_reports_restart_the_quiet_period():
    model = Model(state=ScaleState(wanted=4, capacity_per_s=CAPACITY))
    model.play([100] * 50)
    model.play([100], unreachable=2)
    assert "do not answer" in model.reason
    assert set(model.play([100] * 59)) == {4}


def slow_ack(count: int, load: float, ack_ms: float) -> tuple[PublisherLoad, ...]:
    one = PublisherLoad(rate_per_s=CAPACITY * load, load=load, ack_p99_ms=ack_ms, connected=True)
    return (one,) * count


@pytest.mark.parametrize("ack_ms", [60.0, 400.0])
def test_slow_nats_is_no_reason_for_more_publishers(ack_ms):
    model = Model()
    model.play([3_000] * 60)
    model.backlog = 500_000
    history = model.play([3_000] * 30, publishers=slow_ack(1, 0.3, ack_ms), backlog_age_s=30.0)
    assert set(history) == {1}
    assert model.reason.startswith("NATS is slow")


def test_slow_acknowledgements_of_busy_publishers_are_their_own_doing():
    model = Model()
    model.backlog = 500_000
    assert model.tick(20_000, publishers=slow_ack(1, 0.95, 400.0), backlog_age_s=30.0) > 1


def test_a_lost_nats_connection_is_no_reason_for_more_publishers():
    model = Model()
    model.backlog = 500_000
    gone = PublisherLoad(rate_per_s=0, load=0.01, ack_p99_ms=None, connected=False)
    assert set(model.play([5_000] * 30, publishers=(gone,), backlog_age_s=60.0)) == {1}
    assert model.reason == "NATS is not connected"


def test_an_old_backlog_is_answered_in_the_same_tick():
    model = Model()
    model.backlog = 200_000
    assert model.tick(700) > 1


def test_a_short_need_waits_for_agreement():
    model = Model(state=ScaleState(wanted=1, capacity_per_s=CAPACITY, rate_per_s=9_000, observed_at=-1.0))
    assert model.play([9_000] * 2) == [1, 2]


def test_nothing_leaves_soon_after_an_up():
    model = Model(state=ScaleState(wanted=3, capacity_per_s=CAPACITY, too_many_since=-100.0, up_at=0.0))
    history = model.play([100] * 20)
    assert history.index(2) == DOWN_AFTER_UP_S


def test_a_number_set_by_hand_wins_until_released():
    model = Model()
    assert set(model.play([60_000] * 10, fixed=2)) == {2}
    assert set(model.play([0] * 100, fixed=4)) == {4}
    model.backlog = 0
    assert model.tick(0) == 4


@pytest.mark.parametrize(("fixed", "wanted"), [(0, 1), (8, 8), (50, 10)])
def test_a_number_set_by_hand_is_bounded_by_the_streams_alone(fixed, wanted):
    assert Model().tick(0, fixed=fixed) == wanted


def test_capacity_is_measured_where_publishers_are_busy():
    model = Model(state=ScaleState(wanted=2, capacity_per_s=50_000.0))
    model.play([18_000] * 200)
    assert model.state.capacity_per_s == pytest.approx(CAPACITY, rel=0.01)
    assert model.state.wanted == 3


def test_an_idle_publisher_says_nothing_about_capacity():
    model = Model(state=ScaleState(wanted=1, capacity_per_s=20_000.0))
    model.play([700] * 100)
    assert model.state.capacity_per_s == 20_000.0


def test_fewer_streams_lower_the_bound_at_once():
    model = Model(state=ScaleState(wanted=5, capacity_per_s=CAPACITY))
    model.streams = 3
    assert model.tick(50_000) == 3


rates = st.floats(min_value=0, max_value=200_000)
settings_and_streams = st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(1, 20)).map(
    lambda drawn: (ScaleSettings(minimum=drawn[0], maximum=drawn[0] + drawn[1]), drawn[2])
)


@given(settings_and_streams, st.lists(rates, max_size=80), st.integers(-5, 30))
def test_the_answer_is_always_within_bounds(bounded, curve, start):
    settings, streams = bounded
    model = Model(state=ScaleState(wanted=max(1, start)), settings=settings, streams=streams)
    high = max(1, min(settings.maximum, streams))
    assert all(min(settings.minimum, high) <= wanted <= high for wanted in model.play(curve))


@given(st.lists(st.tuples(rates, st.integers(1, 90)), max_size=12))
def test_at_most_one_publisher_leaves_per_quiet_period(blocks):
    model = Model()
    for rate, seconds in blocks:
        model.play([rate] * seconds)
    downs = [at for at, (before, after) in enumerate(pairwise(model.history)) if after < before]
    steps = [before - after for before, after in pairwise(model.history)]
    assert max(steps, default=0) <= 1
    assert all(later - earlier >= DOWN_AFTER_S for earlier, later in pairwise(downs))


@given(st.floats(0, 40_000), st.integers(1, 6), noise := st.floats(0.97, 1.03), noise)
def test_a_constant_load_converges_and_never_swings(rate, start, wobble, other_wobble):
    model = Model(state=ScaleState(wanted=start, capacity_per_s=CAPACITY))
    model.play([rate * wobble, rate * other_wobble] * 250)
    settled = model.play([rate * other_wobble, rate * wobble] * 150)
    assert len(set(settled)) == 1
    assert model.backlog == 0
    directions = [change > 0 for change in changes(model.history)]
    assert directions == sorted(directions, reverse=True), "ups come first, then downs, then nothing"


@pytest.mark.parametrize("middle", [7_000, 13_000, 14_000, 21_000, 28_000])
def test_a_slow_wave_around_a_threshold_does_not_swing_the_pool(middle):
    model = Model()
    model.play([middle * 1.12] * 300)
    waves = model.play(([middle * 0.88] * 300 + [middle * 1.12] * 300) * 3)
    assert len(set(waves)) == 1
