"""Rows of the fault table in which sockets to the exchange end, fall silent or are refused."""

from __future__ import annotations

import time
from collections.abc import Collection
from functools import partial

import pytest

from tests.chaos.frame_proxy import FrameProxy
from tests.chaos.island import Island
from tests.chaos.processes import Seams
from tests.chaos.proxy import FaultProxy
from tests.chaos.rig import FLOOD, STREAMS, Rig, stream
from tests.chaos.rows import Row
from tests.chaos.test_publisher_rows import EIGHT
from tests.support.polling import until

KEY = f"usdm:{FLOOD}"
BOOKS = "ethusdt@bookTicker"
# A stream's rhythm is known after ten seconds; these streams have 100 events a second.
BUSY = 1_100
# What the relay's budget is by default comes to this a minute while the exchange takes nobody.
STORM_ATTEMPTS = 30
NO_HEALING = {"exchange": {"heal": False}}


@pytest.mark.chaos(
    row=21,
    ci=True,
    fault="all sockets reset, then ended without a Close frame",
    figure="first retry within 500 ms, each at another moment",
)
def test_row_21_reset_and_end(rig: Rig, row: Row) -> None:
    rig.start(proxied_exchange=True, config=NO_HEALING)
    proxy = rig.exchange_proxy
    assert proxy is not None
    retries_s: list[float] = []
    for end in (proxy.reset, proxy.finish, proxy.reset, proxy.finish):
        rig.flows(50)
        accepted, began = len(proxy.accepted_at), time.monotonic()
        row.injected(f"sockets ended by {end.__name__}", end() == len(STREAMS))
        until(lambda: len(proxy.accepted_at) == accepted + len(STREAMS), "each stream is back", 10.0)  # noqa: B023
        retries_s += [at - began for at in proxy.accepted_at[accepted:]]
    rig.flows(100)
    assert len(proxy.accepted_at) == 5 * len(STREAMS), "one attempt each was enough"
    row.measured("slowest first retry", 1e3 * max(retries_s), "ms", 500.0)
    row.measured("between the first and the last", 1e3 * (max(retries_s) - min(retries_s)), "ms")
    assert max(retries_s) - min(retries_s) > 0.05, "streams that were cut off together came back together"
    rig.judge()


@pytest.mark.chaos(
    row=22, fault="the other end of two sockets vanishes without a packet", figure="left within 5 s"
)
def test_row_22_half_open(rig: Rig, row: Row) -> None:
    proxies = vanish_behind(rig, row, (FLOOD, BOOKS))
    began = time.monotonic()
    for proxy in proxies:
        until(lambda: len(proxy.accepted_at) > 1, "another connection", 60.0)  # noqa: B023
    row.measured("noticed after", max(proxy.accepted_at[1] for proxy in proxies) - began, "s", 5.0)
    rig.flows(100)
    assert_others_untouched(rig, {KEY, f"usdm:{BOOKS}"})
    rig.judge()


def vanish_behind(rig: Rig, row: Row, names: Collection[str]) -> list[FaultProxy]:
    rig.start(between=dict.fromkeys(names, partial(_proxied, seed=row.seed)))
    rig.flows(BUSY)
    proxies = [rig.between[name] for name in names]
    row.injected("sockets carry nothing any more", all(proxy.swallow() for proxy in proxies))
    return proxies


def _proxied(port: int, seed: int) -> FaultProxy:
    return FaultProxy(("127.0.0.1", port), seed=seed)


@pytest.mark.chaos(
    row=22,
    fault="packets of one stream vanish for 8 s, then pass again",
    figure="reads on, all missing announced",
)
def test_row_22b_parted(rig: Rig, row: Row) -> None:
    with Island() as island:
        rig.cluster.seams[stream(FLOOD)] = Seams(network=island.name)
        rig.start(exchange={"host": island.outside})
        rig.flows(BUSY)
        island.part()
        row.injected("packets of one stream vanish", not island.reached(rig.exchange.port))
        time.sleep(8.0)
        island.heal()
        began, received = time.monotonic(), rig.stats()[KEY].received
        until(lambda: rig.stats()[KEY].received > received, "it reads on", 60.0)
        row.measured("reads on after", time.monotonic() - began, "s", 5.0)
        rig.flows(200)
        assert_others_untouched(rig, {KEY})
        rig.judge()


@pytest.mark.chaos(
    row=23,
    fault="the exchange stops one stream and answers pings",
    figure="subscribed anew within 5 s",
)
def test_row_23_one_stream_silent(rig: Rig, row: Row) -> None:
    began = silence_one(rig, row)
    until(lambda: rig.stats()[KEY].silences, "the stream is taken for dead", 60.0)
    row.measured("subscribed anew after", time.monotonic() - began, "s", 5.0)
    rig.flows(100)
    assert_others_untouched(rig, {KEY})
    rig.judge()


def silence_one(rig: Rig, row: Row) -> float:
    rig.start(exchange={"ping_interval_s": 1.0})
    rig.flows(BUSY)
    rig.exchange.act("silence", stream=FLOOD)
    began, received = time.monotonic(), rig.stats()[KEY].received
    rig.flows(50, rig.specs().keys() - {KEY})
    row.injected("one stream gets nothing", rig.stats()[KEY].received <= received + 5)
    return began


@pytest.mark.chaos(
    row=28,
    fault="one byte a second, in frames and then in handshakes",
    figure="left within 5 s; each handshake given up within 5 s",
)
def test_row_28_slow_drip(rig: Rig, row: Row) -> None:
    rig.start(between={FLOOD: FrameProxy}, config=NO_HEALING)
    proxy = rig.between[FLOOD]
    rig.flows(BUSY)
    with rig.outage() as outage:
        row.injected("frames drip", proxy.drip())
        until(lambda: len(proxy.calls) > 1, "another connection", 60.0)
        row.measured("frames that drip noticed after", (time.time_ns() - outage.began_ns) / 1e9, "s", 5.0)
        rig.flows(50)
        proxy.drips = True
        before = len(proxy.calls)
        row.injected("sockets cut, handshakes drip", proxy.cut())
        until(lambda: len(proxy.calls) > before + 1, "a second attempt", 30.0)
    given_up = proxy.calls[before]
    row.measured("handshake given up after", given_up.left_at - given_up.opened_at, "s", 5.0)
    proxy.drips = False
    rig.flows(50)
    assert_others_untouched(rig, {KEY})
    rig.judge()
    others = rig.specs().keys() - {KEY}
    row.measured("p99 of the others", rig.p99_ms(others, outage.began_ns, outage.ended_ns), "ms")
    row.measured("before", rig.p99_ms(others, 0, outage.began_ns), "ms")


@pytest.mark.chaos(
    row=29,
    fault="connections live 20 s (6 s in short), then serverShutdown",
    figure="nothing lost, nothing twice, one line in the log each",
)
def test_row_29_make_before_break(rig: Rig, row: Row) -> None:
    lifetime_s = 20.0 if row.long else 6.0
    config = {"exchange": {"heal": False, "rotate_after_s": 0.6 * lifetime_s}}
    rig.start(config=config, exchange={"lifetime_s": lifetime_s})
    until(lambda: all(one.rotations >= 2 for one in rig.stats().values()), "two lifetimes", 120.0)
    aged = sum(one.rotations for one in rig.stats().values())
    row.injected("connections came of age", aged)
    sent = rig.exchange.act("shutdown", close_after_s=1.0)["sockets"]
    row.injected("serverShutdown was sent", sent)
    until(lambda: all("its shutdown" in rig.log(stream(name)) for name in STREAMS), "each has received it")
    time.sleep(1.5)
    rig.flows(100)
    findings = rig.judge()
    assert findings.missing == 0
    stats = rig.stats()
    assert not any(one.reconnects or one.lost or one.unaligned or one.silences for one in stats.values())
    for name in STREAMS:
        lines = rig.log(stream(name)).count("; 0 lost, 0 repeated")
        assert lines == stats[f"usdm:{name}"].rotations >= 3, name
    row.measured("replaced", sum(one.rotations for one in stats.values()), "connections")


@pytest.mark.chaos(
    row=30,
    fault="the exchange refuses everybody for 60 s (in short all at a sixth)",
    figure="30 attempts a minute at most, of all streams together",
)
def test_row_30_reconnect_storm(rig: Rig, row: Row) -> None:
    attempts = storm(rig, row)
    assert attempts <= STORM_ATTEMPTS
    began = time.monotonic()
    rig.exchange.act("accept")
    rig.flows(50, within_s=120.0)
    row.measured("all back after", time.monotonic() - began, "s", 60.0 if row.long else 10.0)
    rig.judge()


def storm(rig: Rig, row: Row, without: tuple[str, ...] = ()) -> int:
    """How often all streams together asked in the time that their budget counts fruitless attempts over."""
    span_s = 60.0 if row.long else 10.0
    for name in EIGHT:
        rig.cluster.seams[stream(name)] = Seams(
            without=without, figures={"relay.binance.connect_budget.STORM_S": span_s}
        )
    rig.start(EIGHT)
    rig.flows(50)
    before = rig.exchange.report()["connects"]
    rig.exchange.act("refuse", how="503")
    row.injected("sockets cut, and refused", rig.exchange.act("close", code=1006)["sockets"] == len(EIGHT))
    time.sleep(span_s)
    attempts = rig.exchange.report()["connects"] - before
    row.measured(f"attempts in {span_s:g} s", attempts, "", STORM_ATTEMPTS)
    return int(attempts)


def assert_others_untouched(rig: Rig, keys: Collection[str]) -> None:
    for key, one in rig.stats().items():
        assert key in keys or not one.reconnects + one.silences + one.unaligned, key
