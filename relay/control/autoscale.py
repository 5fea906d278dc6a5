"""How many publishers there should be: a pure function of an observation, the state before it, and `now`.

    need = (input rate + backlog / DRAIN_S) / (measured capacity of one publisher * share of it to use)

Up, in one step, as soon as the backlog is older than OLD_BACKLOG_S or the need has held for UP_AFTER_S. Down
by one when the need has been lower for DOWN_AFTER_S, computed with a smaller share so that a steady load does
not make the number oscillate, and not while a publisher starts or leaves, an actor does not answer, or
within DOWN_AFTER_UP_S of an increase. Not up while NATS is the bottleneck. A number that an operator set
overrides all of this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, exp
from statistics import fmean, median

# Up to UP_SHARE of a core a publisher still acknowledges quickly. One publisher fewer must fit DOWN_SHARE.
UP_SHARE = 0.7
DOWN_SHARE = 0.5
DRAIN_S = 10.0
OLD_BACKLOG_S = 1.0
UP_AFTER_S = 1.0
DOWN_AFTER_S = 60.0
DOWN_AFTER_UP_S = 15.0
RATE_TAU_S = 3.0
CAPACITY_TAU_S = 20.0
ACK_TAU_S = 60.0
# Capacity is measured above this load only: below it, the fixed costs of a process hide those of an event.
MEASURABLE_LOAD = 0.2
# Until something is measured: half of what a publisher handles on a core of its own. Too low a value starts
# one publisher too many in the middle of a burst (ADR 12), too high a value delays the first by seconds.
FIRST_CAPACITY_PER_S = 40_000.0
LOWEST_CAPACITY_PER_S = 100.0
# A local JetStream acknowledges within milliseconds; a replicated one within tens of them.
HIGH_ACK_MS = 250.0
RISING_ACK_MS = 50.0
RISING_FACTOR = 4.0
# A publisher busier than this may cause its slow acknowledgements itself.
BUSY_LOAD = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSettings:
    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherLoad:
    """The figures of a publisher that answered. `ack_p99_ms` is None until something is acknowledged."""

    rate_per_s: float
    load: float
    ack_p99_ms: float | None
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSnapshot:
    """One observation. `unreachable` counts the actors that did not answer, whose figures are missing here.

    `fixed` is the number that an operator set, None for automatic. `streams` is how many there should be.
    """

    streams: int
    input_rate_per_s: float
    backlog: int
    backlog_age_s: float
    publishers: tuple[PublisherLoad, ...]
    starting: int = 0
    leaving: int = 0
    unreachable: int = 0
    fixed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleState:
    """`wanted` includes publishers that are starting. Times are None before the first observation, or while
    the condition does not hold; so is `usual_ack_ms` until something is acknowledged."""

    wanted: int
    rate_per_s: float = 0.0
    capacity_per_s: float = FIRST_CAPACITY_PER_S
    usual_ack_ms: float | None = None
    observed_at: float | None = None
    too_few_since: float | None = None
    too_many_since: float | None = None
    up_at: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    wanted: int
    reason: str


def decide(
    settings: ScaleSettings, snapshot: ScaleSnapshot, state: ScaleState, now: float
) -> tuple[Decision, ScaleState]:
    state = _measure(snapshot, state, now)
    low, high = bounds(settings, snapshot.streams)
    if snapshot.fixed is not None:
        wanted = min(max(1, snapshot.fixed), max(1, snapshot.streams))
        return _decided(_balanced(state, wanted), "set by hand")
    if not low <= state.wanted <= high:
        inside = min(max(low, state.wanted), high)
        return _decided(_balanced(state, inside), f"between {low} and {high}")
    needed = min(max(low, _publishers_needed(snapshot, state, UP_SHARE)), high)
    enough = min(max(low, _publishers_needed(snapshot, state, DOWN_SHARE)), high)
    if needed > state.wanted:
        return _consider_up(snapshot, replace(state, too_many_since=None), needed, now)
    if enough < state.wanted:
        return _consider_down(snapshot, replace(state, too_few_since=None), now)
    return _decided(_balanced(state, state.wanted), _load_text(snapshot, state))


def bounds(settings: ScaleSettings, streams: int) -> tuple[int, int]:
    """Never more publishers than streams: one without a stream would have nothing to do."""
    high = max(1, min(settings.maximum, streams))
    return min(settings.minimum, high), high


def _measure(snapshot: ScaleSnapshot, state: ScaleState, now: float) -> ScaleState:
    elapsed_s = 0.0 if state.observed_at is None else max(0.0, now - state.observed_at)
    rate = snapshot.input_rate_per_s
    if state.observed_at is not None:
        rate = _towards(state.rate_per_s, rate, elapsed_s / RATE_TAU_S)
    capacity = state.capacity_per_s
    measurable = [publisher for publisher in snapshot.publishers if publisher.load >= MEASURABLE_LOAD]
    if measurable:
        measured = sum(p.rate_per_s for p in measurable) / sum(p.load for p in measurable)
        capacity = max(LOWEST_CAPACITY_PER_S, _towards(capacity, measured, elapsed_s / CAPACITY_TAU_S))
    usual_ack_ms = _usual_ack_ms(snapshot, state, elapsed_s)
    return replace(
        state, rate_per_s=rate, capacity_per_s=capacity, usual_ack_ms=usual_ack_ms, observed_at=now
    )


def _towards(old: float, new: float, time_constants: float) -> float:
    return new + (old - new) * exp(-time_constants)


def _ack_ms(snapshot: ScaleSnapshot) -> float | None:
    times = [publisher.ack_p99_ms for publisher in snapshot.publishers if publisher.ack_p99_ms is not None]
    return median(times) if times else None


def _usual_ack_ms(snapshot: ScaleSnapshot, state: ScaleState, elapsed_s: float) -> float | None:
    ack_ms = _ack_ms(snapshot)
    if ack_ms is None or _nats_bottleneck(snapshot, state):
        return state.usual_ack_ms
    if state.usual_ack_ms is None:
        return ack_ms
    return _towards(state.usual_ack_ms, ack_ms, elapsed_s / ACK_TAU_S)


def _nats_bottleneck(snapshot: ScaleSnapshot, state: ScaleState) -> str:
    """Why more publishers would not help; empty when they may."""
    if not snapshot.publishers:
        return ""
    if not any(publisher.connected for publisher in snapshot.publishers):
        return "NATS is not connected"
    ack_ms = _ack_ms(snapshot)
    if ack_ms is None or fmean(publisher.load for publisher in snapshot.publishers) >= BUSY_LOAD:
        return ""
    usual_ms = state.usual_ack_ms
    rising = usual_ms is not None and ack_ms > max(RISING_ACK_MS, RISING_FACTOR * usual_ms)
    return f"NATS is slow, ack p99 {ack_ms:,.0f} ms" if ack_ms > HIGH_ACK_MS or rising else ""


def _publishers_needed(snapshot: ScaleSnapshot, state: ScaleState, share: float) -> int:
    demand_per_s = state.rate_per_s + snapshot.backlog / DRAIN_S
    # The slack keeps 2.0000001 publishers from becoming 3.
    return ceil(demand_per_s / (state.capacity_per_s * share) - 1e-6)


def _consider_up(
    snapshot: ScaleSnapshot, state: ScaleState, needed: int, now: float
) -> tuple[Decision, ScaleState]:
    if slow := _nats_bottleneck(snapshot, state):
        return _decided(replace(state, too_few_since=None), slow)
    since = now if state.too_few_since is None else state.too_few_since
    text = _load_text(snapshot, state)
    if snapshot.backlog_age_s > OLD_BACKLOG_S or now - since >= UP_AFTER_S:
        return _decided(replace(_balanced(state, needed), up_at=now), text)
    return _decided(replace(state, too_few_since=since), text)


def _consider_down(snapshot: ScaleSnapshot, state: ScaleState, now: float) -> tuple[Decision, ScaleState]:
    if snapshot.unreachable:
        text = f"no fewer while {snapshot.unreachable} actors do not answer"
        return _decided(replace(state, too_many_since=None), text)
    since = now if state.too_many_since is None else state.too_many_since
    state = replace(state, too_many_since=since)
    text = _load_text(snapshot, state)
    up_has_settled = state.up_at is None or now - state.up_at >= DOWN_AFTER_UP_S
    if snapshot.starting or snapshot.leaving or not up_has_settled or now - since < DOWN_AFTER_S:
        return _decided(state, text)
    return _decided(replace(state, wanted=state.wanted - 1, too_many_since=now), text)


def _balanced(state: ScaleState, wanted: int) -> ScaleState:
    return replace(state, wanted=wanted, too_few_since=None, too_many_since=None)


def _decided(state: ScaleState, reason: str) -> tuple[Decision, ScaleState]:
    return Decision(state.wanted, reason), state


def _load_text(snapshot: ScaleSnapshot, state: ScaleState) -> str:
    text = f"{state.rate_per_s:,.0f} of {state.capacity_per_s:,.0f} msg/s each"
    return f"{text}, backlog {snapshot.backlog:,}" if snapshot.backlog else text
