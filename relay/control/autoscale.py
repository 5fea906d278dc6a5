"""How many publishers there should be: a function of one look at the relay, the state before, and `now`.

    need = (input rate + backlog / DRAIN_S) / (measured capacity of one publisher * share of it to use)

Up at once when the backlog is old, else when the need holds for UP_AFTER_S, in one jump. Down by one after
DOWN_AFTER_S of agreement, judged by a smaller share so that a steady load never swings, and never while a
publisher starts or leaves, soon after an up, or when an actor has not answered. Not up while NATS is what is
slow. A number set by hand wins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, exp
from statistics import fmean, median

# Share of a core at which a publisher still answers quickly, and the one below which it may take over more.
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
# Below this load the fixed costs of a process hide what an event costs.
TELLING_LOAD = 0.2
# Until something is measured: half of what one carries on a core of its own. Too low starts one too many in
# the middle of a burst (ADR 12), too high delays the first one by seconds.
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
    """What one publisher that answered says. `ack_p99_ms` is None while nothing was acknowledged."""

    rate_per_s: float
    load: float
    ack_p99_ms: float | None
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSnapshot:
    """One look at the relay. `unheard` counts actors that did not answer, whose figures are missing here.

    `fixed` is the number set by hand, None for automatic. `streams` is how many there should be.
    """

    streams: int
    input_rate_per_s: float
    backlog: int
    backlog_age_s: float
    publishers: tuple[PublisherLoad, ...]
    starting: int = 0
    leaving: int = 0
    unheard: int = 0
    fixed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleState:
    """`wanted` includes publishers that still start. None: no look yet, or the condition does not hold."""

    wanted: int
    rate_per_s: float = 0.0
    capacity_per_s: float = FIRST_CAPACITY_PER_S
    usual_ack_ms: float | None = None
    looked_at: float | None = None
    short_since: float | None = None
    ample_since: float | None = None
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
        return _decided(_at_rest(state, wanted), "set by hand")
    if not low <= state.wanted <= high:
        inside = min(max(low, state.wanted), high)
        return _decided(_at_rest(state, inside), f"between {low} and {high}")
    needed = min(max(low, _need(snapshot, state, UP_SHARE)), high)
    ample = min(max(low, _need(snapshot, state, DOWN_SHARE)), high)
    if needed > state.wanted:
        return _short(snapshot, replace(state, ample_since=None), needed, now)
    if ample < state.wanted:
        return _ample(snapshot, replace(state, short_since=None), now)
    return _decided(_at_rest(state, state.wanted), _load_text(snapshot, state))


def bounds(settings: ScaleSettings, streams: int) -> tuple[int, int]:
    """A publisher without a stream would be waste, so there are never more of them than streams."""
    high = max(1, min(settings.maximum, streams))
    return min(settings.minimum, high), high


def _measure(snapshot: ScaleSnapshot, state: ScaleState, now: float) -> ScaleState:
    elapsed_s = 0.0 if state.looked_at is None else max(0.0, now - state.looked_at)
    rate = snapshot.input_rate_per_s
    if state.looked_at is not None:
        rate = _towards(state.rate_per_s, rate, elapsed_s / RATE_TAU_S)
    capacity = state.capacity_per_s
    telling = [publisher for publisher in snapshot.publishers if publisher.load >= TELLING_LOAD]
    if telling:
        measured = sum(p.rate_per_s for p in telling) / sum(p.load for p in telling)
        capacity = max(LOWEST_CAPACITY_PER_S, _towards(capacity, measured, elapsed_s / CAPACITY_TAU_S))
    usual_ack_ms = _usual_ack_ms(snapshot, state, elapsed_s)
    return replace(state, rate_per_s=rate, capacity_per_s=capacity, usual_ack_ms=usual_ack_ms, looked_at=now)


def _towards(old: float, new: float, time_constants: float) -> float:
    return new + (old - new) * exp(-time_constants)


def _ack_ms(snapshot: ScaleSnapshot) -> float | None:
    times = [publisher.ack_p99_ms for publisher in snapshot.publishers if publisher.ack_p99_ms is not None]
    return median(times) if times else None


def _usual_ack_ms(snapshot: ScaleSnapshot, state: ScaleState, elapsed_s: float) -> float | None:
    ack_ms = _ack_ms(snapshot)
    if ack_ms is None or _slow_nats(snapshot, state):
        return state.usual_ack_ms
    if state.usual_ack_ms is None:
        return ack_ms
    return _towards(state.usual_ack_ms, ack_ms, elapsed_s / ACK_TAU_S)


def _slow_nats(snapshot: ScaleSnapshot, state: ScaleState) -> str:
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


def _need(snapshot: ScaleSnapshot, state: ScaleState, share: float) -> int:
    demand_per_s = state.rate_per_s + snapshot.backlog / DRAIN_S
    # The slack keeps 2.0000001 publishers from becoming 3.
    return ceil(demand_per_s / (state.capacity_per_s * share) - 1e-6)


def _short(
    snapshot: ScaleSnapshot, state: ScaleState, needed: int, now: float
) -> tuple[Decision, ScaleState]:
    if slow := _slow_nats(snapshot, state):
        return _decided(replace(state, short_since=None), slow)
    since = now if state.short_since is None else state.short_since
    text = _load_text(snapshot, state)
    if snapshot.backlog_age_s > OLD_BACKLOG_S or now - since >= UP_AFTER_S:
        return _decided(replace(_at_rest(state, needed), up_at=now), text)
    return _decided(replace(state, short_since=since), text)


def _ample(snapshot: ScaleSnapshot, state: ScaleState, now: float) -> tuple[Decision, ScaleState]:
    if snapshot.unheard:
        text = f"no fewer while {snapshot.unheard} actors do not answer"
        return _decided(replace(state, ample_since=None), text)
    since = now if state.ample_since is None else state.ample_since
    state = replace(state, ample_since=since)
    text = _load_text(snapshot, state)
    settled = state.up_at is None or now - state.up_at >= DOWN_AFTER_UP_S
    if snapshot.starting or snapshot.leaving or not settled or now - since < DOWN_AFTER_S:
        return _decided(state, text)
    return _decided(replace(state, wanted=state.wanted - 1, ample_since=now), text)


def _at_rest(state: ScaleState, wanted: int) -> ScaleState:
    return replace(state, wanted=wanted, short_since=None, ample_since=None)


def _decided(state: ScaleState, reason: str) -> tuple[Decision, ScaleState]:
    return Decision(state.wanted, reason), state


def _load_text(snapshot: ScaleSnapshot, state: ScaleState) -> str:
    text = f"{state.rate_per_s:,.0f} of {state.capacity_per_s:,.0f} msg/s each"
    return f"{text}, backlog {snapshot.backlog:,}" if snapshot.backlog else text
