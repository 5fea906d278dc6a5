"""When the relay is ready, and when it cannot help itself any more: one test for each reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.model.stats import Health, RelayStatus, ScaleMode, ScaleStatus
from relay.observability.health import (
    ABSENT_S,
    SILENT_S,
    STALLED_S,
    STUCK_S,
    UNACKNOWLEDGED_S,
    UNBALANCED_S,
    UNRESPONSIVE_S,
    Finding,
    HealthTracker,
    health_of,
)
from tests.support.fakes import publisher_stats, stream_stats

KEY = "usdm:btcusdt@trade"
WANTED = {KEY: 15.0}
WELL = stream_stats(KEY, publisher="p0", linked=True, subscribed_at_ns=1, first_data_at_ns=2)
P0 = publisher_stats("p0")


def status(*streams, publishers=(P0,), **changes) -> RelayStatus:
    one = RelayStatus(
        config_version=1, controller_pid=9, uptime_s=1.0, delivery="jetstream", streams=streams,
        scale=ScaleStatus(mode=ScaleMode.AUTO, wanted=1, actual=1, min=1, max=2, reason="idle"),
        publishers=publishers,
    )  # fmt: skip
    return replace(one, **changes)


def after(seconds: float, status_seen: RelayStatus, wanted=WANTED, jetstream: str = "") -> Health:
    """What is said once the relay has status_seen like this for so long."""
    watch = HealthTracker()
    watch.update(status_seen, wanted, jetstream, 1_000.0)
    now = 1_000.0 + seconds
    return health_of(watch.update(status_seen, wanted, jetstream, now), now, now)


def test_a_relay_that_delivers_is_ready_and_healthy_for_ever():
    assert after(1e6, status(WELL)) == Health()


@pytest.mark.parametrize(
    ("streams", "text"),
    [
        ((), f"{KEY} has not started"),
        ((replace(WELL, subscribed_at_ns=0),), f"{KEY} has not reached the exchange"),
        ((replace(WELL, first_data_at_ns=0),), f"{KEY} has had no data"),
        ((replace(WELL, received=0, acknowledged=0),), f"NATS has acknowledged nothing of {KEY} yet"),
        ((replace(WELL, last_data_age_s=15.0 + SILENT_S),), f"{KEY} gets no data"),
    ],
)
def test_every_stream_has_to_have_delivered(streams, text):
    (reason,) = after(2.0, status(*streams)).not_ready
    assert reason == f"{text} (2.0 s)"


def test_a_stream_that_may_be_silent_for_days_only_has_to_be_connected():
    silent = replace(WELL, first_data_at_ns=0, last_data_age_s=None, received=0, acknowledged=0)
    assert after(1e6, status(silent), {KEY: None}) == Health()
    assert after(0.0, status(replace(silent, subscribed_at_ns=0)), {KEY: None}).not_ready


def test_nobody_waits_for_a_stream_that_was_stopped():
    assert after(1e6, status(), {}) == Health()


@pytest.mark.parametrize(
    ("status_seen", "text"),
    [
        (status(WELL, publishers=()), "no publisher runs"),
        (status(WELL, publishers=(replace(P0, connected=False),)), "no publisher has a connection to NATS"),
        (status(WELL, unreachable=(KEY,)), f"{KEY} does not answer"),
    ],
)
def test_somebody_has_to_be_there_to_deliver(status_seen, text):
    (reason,) = after(UNRESPONSIVE_S, status_seen).not_ready
    assert reason.startswith(text)


def test_a_publisher_more_that_only_starts_keeps_nobody_from_being_ready():
    assert after(ABSENT_S - 1, status(WELL, unreachable=("p1",))) == Health()
    assert after(ABSENT_S, status(WELL, unreachable=("p1",))).unhealthy


def test_jetstreams_streams_have_to_be_there():
    health = after(1e6, status(WELL), jetstream="no room")
    assert "no room" in health.not_ready[0]
    assert health.unhealthy == (), "tried again for ever"


@pytest.mark.parametrize(
    ("seconds", "ready", "healthy"),
    [(UNACKNOWLEDGED_S - 1, True, True), (UNACKNOWLEDGED_S, False, True), (STALLED_S, False, False)],
)
def test_acknowledgements_have_to_come_while_something_waits(seconds, ready, healthy):
    held = replace(WELL, queued=5, received=15)
    health = after(seconds, status(held))
    assert (not health.not_ready, not health.unhealthy) == (ready, healthy)


def test_nats_may_be_away_for_as_long_as_it_likes():
    held = replace(WELL, queued=5, received=15)
    away = status(held, publishers=(replace(P0, connected=False),))
    assert after(1e6, away).unhealthy == ()
    assert len(after(1e6, away).not_ready) == 2


def test_a_backlog_that_moves_is_no_stall():
    watch = HealthTracker()
    for second in range(1_000):
        flowing = replace(WELL, queued=5, received=15 + second, acknowledged=10 + second)
        found = watch.update(status(flowing), WANTED, "", float(second))
    assert health_of(found, 999.0, 999.0) == Health()


def test_what_began_to_wait_just_now_is_no_stall():
    """The time counts from when there was something to acknowledge, not from the last acknowledgement."""
    watch = HealthTracker()
    watch.update(status(WELL), WANTED, "", 0.0)
    watch.update(status(WELL), WANTED, "", 1_000.0)
    found = watch.update(status(replace(WELL, queued=1, received=11)), WANTED, "", 1_001.0)
    assert health_of(found, 1_001.0, 1_001.0) == Health()


def test_a_new_incarnation_starts_a_new_count():
    held = replace(WELL, queued=5, received=15)
    watch = HealthTracker()
    watch.update(status(held), WANTED, "", 0.0)
    found = watch.update(status(replace(held, epoch=2)), WANTED, "", STALLED_S)
    assert health_of(found, STALLED_S, STALLED_S).unhealthy == ()


@pytest.mark.parametrize(
    ("status_seen", "patience_s"),
    [
        (status(), ABSENT_S),
        (status(WELL, publishers=()), ABSENT_S),
        (status(WELL, unreachable=(KEY,)), ABSENT_S),
        (status(replace(WELL, received=11)), UNBALANCED_S),
    ],
    ids=["a stream never starts", "no publisher ever starts", "a stream stays mute", "books do not balance"],
)
def test_what_the_relays_own_remedies_should_have_ended_is_unhealthy(status_seen, patience_s):
    assert after(patience_s - 1, status_seen).unhealthy == ()
    assert len(after(patience_s, status_seen).unhealthy) == 1


def test_a_controller_that_sees_nothing_any_more_says_so():
    findings = HealthTracker().update(status(WELL), WANTED, "", 0.0)
    assert health_of(findings, 0.0, SILENT_S - 1) == Health()
    assert health_of(findings, 0.0, SILENT_S).not_ready == (
        "the controller has not seen the relay for 30.0 s",
    )
    assert health_of(findings, 0.0, STUCK_S).unhealthy == ("the controller has not seen the relay for 2 min",)


FINDINGS = st.builds(
    Finding,
    st.sampled_from(["a", "b"]),
    st.floats(0, 100),
    st.floats(0, 100),
    st.none() | st.floats(100, 400),
)


@given(st.lists(FINDINGS, max_size=4).map(tuple), st.floats(0, 100), st.floats(0, 1e4), st.floats(0, 1e4))
def test_nothing_gets_better_by_waiting_alone(findings, looked_at, earlier, later):
    """Only another look can help; and who is unhealthy is not ready either."""
    first, second = (health_of(findings, looked_at, 100 + max(0.0, at)) for at in sorted((earlier, later)))
    assert len(first.not_ready) <= len(second.not_ready)
    assert len(first.unhealthy) <= len(second.unhealthy)
    assert set(second.unhealthy) <= set(second.not_ready)
