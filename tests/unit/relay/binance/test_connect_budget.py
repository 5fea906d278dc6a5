"""The connect budget: what it allows, over any window, to any number of streams."""

from __future__ import annotations

import heapq
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.binance.connect_budget import (
    ALIVE_S,
    MAX_CLOSED_S,
    REPORT_S,
    STORM_S,
    STORM_SHARE,
    WINDOW_S,
    AttemptOutcome,
    BudgetClaim,
    ConnectBudget,
)
from relay.primitives.backoff import Backoff
from simulator.handshake_limits import HandshakeLimiter, Refusal

TOTAL = 150


def claim(
    stream: str = "usdm:a@trade", *, total: int = TOTAL, streams: int = 1, shared: bool = True
) -> BudgetClaim:
    return BudgetClaim(stream, total, streams, shared)


def most_in(times: list[float], window_s: float) -> int:
    """The most that any half-open window of this length holds."""
    return max((sum(at <= each < at + window_s for each in times) for at in times), default=0)


asks = st.lists(
    st.tuples(st.floats(0.0, 60.0), st.booleans(), st.sampled_from(list(AttemptOutcome)), st.booleans()),
    max_size=120,
)


@settings(max_examples=150)
@given(st.integers(1, 40), asks)
def test_no_window_ever_holds_more_attempts_than_allowed(
    total: int, script: list[tuple[float, bool, AttemptOutcome, bool]]
):
    log, now = ConnectBudget(), 0.0
    granted, spares, fruitless = [], [], []
    for pause_s, low_priority, outcome, saved in script:
        now += pause_s
        before = [at for at in granted if at > now - WINDOW_S]
        if log.try_acquire(claim(total=total), now, low_priority=low_priority) == 0.0:
            granted.append(now)
            if low_priority:
                spares.append(len(before))
            if outcome is not AttemptOutcome.OPENED:
                fruitless.append(now)
            log.record_outcome(log.granted, outcome)
        if saved:
            log = ConnectBudget.decode(log.encode())
    assert most_in(granted, WINDOW_S) <= total
    assert most_in(fruitless, STORM_S) <= max(1, total // STORM_SHARE)
    assert all(used < max(1, total // 2) for used in spares)


@settings(max_examples=150)
@given(st.integers(1, 20), st.lists(st.floats(0.0, 90.0), min_size=1, max_size=60))
def test_whoever_waits_as_told_is_let_in(total: int, pauses_s: list[float]):
    log, now = ConnectBudget(), 0.0
    for pause_s in pauses_s:
        now += pause_s
        wait_s = log.try_acquire(claim(total=total), now, low_priority=False)
        if wait_s:
            now += wait_s + 1e-6
            assert log.try_acquire(claim(total=total), now, low_priority=False) == 0.0
        log.record_outcome(log.granted, AttemptOutcome.FAILED)


def test_an_attempt_that_opened_counts_no_longer_for_the_storm():
    log = ConnectBudget()
    for _ in range(TOTAL // STORM_SHARE):
        assert log.try_acquire(claim(), 0.0, low_priority=False) == 0.0
    assert log.try_acquire(claim(), 0.0, low_priority=False) == STORM_S
    log.record_outcome(1, AttemptOutcome.OPENED)
    assert log.try_acquire(claim(), 0.0, low_priority=False) == 0.0


def test_the_exchanges_word_to_stay_away_counts_for_all_streams():
    log = ConnectBudget()
    log.close(120.0, 0.0)
    assert log.try_acquire(claim("usdm:b@trade"), 20.0, low_priority=False) == 100.0
    log.close(1e9, 20.0)
    assert log.try_acquire(claim(), 20.0, low_priority=False) == MAX_CLOSED_S


def test_nodes_behind_one_address_share_by_their_streams():
    log = ConnectBudget()
    for number in range(25):
        log.report(claim(f"usdm:s{number}@trade", streams=100), 0.0)
    assert log.limit(claim(streams=100)) == TOTAL // 4
    assert log.limit(claim(streams=100, shared=False)) == TOTAL


def test_a_stream_that_left_the_node_counts_no_longer_here():
    log = ConnectBudget()
    log.report(claim("usdm:a@trade", streams=2), 0.0)
    log.report(claim("usdm:b@trade", streams=2), 0.0)
    log.report(claim("usdm:b@trade", streams=2), ALIVE_S - REPORT_S)
    log.report(claim("usdm:b@trade", streams=2), ALIVE_S)
    assert log.limit(claim(streams=2)) == TOTAL // 2


def test_the_newest_stream_knows_best_how_many_there_are():
    log = ConnectBudget()
    log.report(claim("usdm:old@trade", streams=1), 0.0)
    log.report(claim("usdm:new@trade", streams=8), 1.0)
    assert log.limit(claim(streams=1)) == TOTAL // 4


def test_what_a_stream_may_do_alone_adds_up_to_the_budget():
    assert claim(streams=100).alone * 100 <= TOTAL
    assert claim(streams=1000).alone == 1


@pytest.mark.parametrize("garbage", [b"", b"{", b"[1,2]", b"[[[1]],{},0,0]", b"[[],[],0,0]", b"null"])
def test_a_log_that_cannot_be_read_is_begun_anew(garbage: bytes):
    assert ConnectBudget.decode(garbage).try_acquire(claim(), 5.0, low_priority=False) == 0.0


def test_times_of_before_the_machines_start_do_not_count():
    log = ConnectBudget()
    while log.try_acquire(claim(), 10_000.0, low_priority=False) == 0.0:
        pass
    assert log.try_acquire(claim(), 5.0, low_priority=False) == 0.0


class Fleet:
    """Streams that were all cut off at time 0, and an exchange that refuses them for a while."""

    HANDSHAKE_S = 0.2

    def __init__(self, streams: int, refusing_s: float, seed: int) -> None:
        self.handshake_limiter = HandshakeLimiter(limit=300)
        self.attempts_s: list[float] = []
        self.banned = 0
        self.back_s: dict[int, float] = {}
        self._refusing_s = refusing_s
        self._random = Random(seed)
        self._log = ConnectBudget()
        self._claims = [claim(f"usdm:s{n}@trade", streams=streams) for n in range(streams)]
        self._backoffs = [Backoff(0.25, 30.0, self._random) for _ in range(streams)]
        self._due = [(self._backoffs[n].next_s(), n, 0) for n in range(streams)]
        heapq.heapify(self._due)

    def run(self, until_s: float) -> None:
        while self._due and self._due[0][0] <= until_s:
            now, stream, attempt = heapq.heappop(self._due)
            again_s = self._settle(now, stream, attempt) if attempt else self._ask(now, stream)
            if again_s is not None:
                heapq.heappush(self._due, again_s)

    def _ask(self, now: float, stream: int) -> tuple[float, int, int]:
        wait_s = self._log.try_acquire(self._claims[stream], now, low_priority=False)
        if wait_s:
            return now + min(wait_s, 1.0) * self._random.uniform(0.5, 1.0), stream, 0
        self.attempts_s.append(now)
        refusing = now < self._refusing_s
        if refusing:
            self.handshake_limiter.refuse(Refusal(503), 1)
        refusal = self.handshake_limiter.admit(now)
        self.banned += refusal is not None and refusal.how == 429
        number = self._log.granted
        return now + self.HANDSHAKE_S, stream, -number if refusal else number

    def _settle(self, now: float, stream: int, attempt: int) -> tuple[float, int, int] | None:
        self._log.record_outcome(
            abs(attempt), AttemptOutcome.OPENED if attempt > 0 else AttemptOutcome.FAILED
        )
        if attempt > 0:
            self.back_s[stream] = now
            return None
        return now + self._backoffs[stream].next_s(), stream, 0


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_streams_cut_off_at_once_are_back_within_seconds(seed: int):
    fleet = Fleet(100, refusing_s=0.0, seed=seed)
    fleet.run(60.0)
    assert (len(fleet.back_s), fleet.banned, len(fleet.attempts_s)) == (100, 0, 100)
    assert max(fleet.back_s.values()) < 10.0


@pytest.mark.parametrize(("streams", "seed"), [(10, 1), (10, 2), (10, 3), (100, 1)])
def test_an_exchange_that_refuses_all_for_a_minute_is_asked_thirty_times_and_bans_nobody(
    streams: int, seed: int
):
    fleet = Fleet(streams, refusing_s=60.0, seed=seed)
    fleet.run(600.0)
    assert len(fleet.back_s) == streams
    assert fleet.banned == 0
    refused = [at for at in fleet.attempts_s if at < 60.0]
    assert len(refused) <= 30
    assert most_in(fleet.attempts_s, WINDOW_S) <= TOTAL
    assert max(fleet.back_s.values()) < 130.0


def test_an_exchange_that_refuses_all_for_long_never_sees_more_than_the_budget():
    fleet = Fleet(10, refusing_s=700.0, seed=1)
    fleet.run(1000.0)
    assert (len(fleet.back_s), fleet.banned) == (10, 0)
    assert most_in([at for at in fleet.attempts_s if at < 700.0], STORM_S) <= TOTAL // STORM_SHARE
    assert most_in(fleet.attempts_s, WINDOW_S) <= TOTAL
