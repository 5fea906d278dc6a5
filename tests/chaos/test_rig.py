"""The rig itself: an oracle that finds nothing, and a fault that does nothing, would hide what is sought."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from relay.binance.streams import Venue, parse_stream
from tests.chaos.proxy import (
    Bandwidth,
    FaultProxy,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Way,
)
from tests.chaos.rows import NothingHappenedError, Outcome, Row, table
from tests.support.oracle import Evidence, Loss, Stored, Wired, judge

TRADES = parse_stream(Venue.USDM, "btcusdt@trade")
BOOKS = parse_stream(Venue.USDM, "btcusdt@bookTicker")
SECOND_NS = 1_000_000_000


def wired(number: int, at_s: int = 0) -> Wired:
    return Wired(at_s * SECOND_NS, True, b'{"e":"trade","t":%d}' % number)


def stored(number: int, **changes: object) -> Stored:
    made = Stored(number, f"usdm:btcusdt@trade:{number}", 1, number, 0, 0, wired(number).payload)
    return made._replace(**changes)


def loss(first: int | None, last: int | None, count: int | None = None, **changes: object) -> Loss:
    made = Loss("usdm:btcusdt@trade", first, last, count, "disconnect", 0, 0, False)
    return made._replace(**changes)


def evidence(**changes: object) -> Evidence:
    made = {
        "spec": TRADES,
        "wired": [wired(n) for n in range(1, 6)],
        "stored": [stored(n) for n in range(1, 6)],
    }
    return Evidence(**{**made, **changes})


def test_whole_streams_violate_nothing() -> None:
    assert judge([evidence(), evidence(spec=BOOKS)]).violations == []


@pytest.mark.parametrize(
    ("invariant", "changes"),
    [
        ("I1", {"accepted": {(1, 9)}}),
        ("I1", {"balanced": False}),
        ("I2", {"stored": [*(stored(n) for n in range(1, 6)), stored(5, seq=6)]}),
        ("I3", {"stored": [stored(n) for n in (1, 2, 4, 3, 5)]}),
        ("I3", {"stored": [stored(n, epoch=2 if n == 2 else 1) for n in range(1, 6)]}),
        ("I4", {"stored": [stored(n, payload=wired(n if n < 5 else 4).payload) for n in range(1, 6)]}),
        ("I5", {"stored": [stored(n) for n in (1, 2, 4, 5)]}),
        ("I5", {"losses": [loss(9, 9, 1)]}),
        ("I5", {"stored": [stored(n) for n in (1, 2, 4, 5)], "losses": [loss(3, 3, 7)]}),
        ("I5", {"stored": [stored(n) for n in (1, 2, 4, 5)], "losses": [loss(3, 4, 2)]}),
        ("I5", {"spec": BOOKS, "stored": [stored(n) for n in (1, 2, 4, 5)], "losses": []}),
    ],
)
def test_every_invariant_is_missed_when_it_is_violated(invariant: str, changes: dict[str, object]) -> None:
    assert judge([evidence(**changes)]).of(invariant)


def test_what_is_announced_exactly_is_no_violation() -> None:
    some = [stored(n) for n in (1, 2, 5)]
    assert judge([evidence(stored=some, losses=[loss(3, 4, 2)])]).violations == []
    silent = [wired(n, at_s=60 * n) for n in range(1, 6)]
    spell = loss(None, None, from_ns=120 * SECOND_NS, to_ns=300 * SECOND_NS)
    assert judge([evidence(spec=BOOKS, wired=silent, stored=some, losses=[spell])]).violations == []


def test_what_was_repaired_is_neither_missing_nor_to_be_announced() -> None:
    found = judge([evidence(stored=[stored(n) for n in (1, 2, 5)], repaired=[stored(3), stored(4)])])
    assert found.violations == [] and found.repaired == 2


def test_what_died_between_the_publisher_and_its_journal_may_be_counted_again_but_not_be_lost() -> None:
    successor = [stored(n, epoch=2, seq=n - 1) for n in (4, 5)]
    whole = evidence(stored=[*(stored(n) for n in (1, 2, 3)), *successor], accepted={(2, 1), (2, 2)})
    assert judge([whole]).violations == []
    with_gap = evidence(stored=[*(stored(n) for n in (1, 2)), *successor], accepted={(2, 1), (2, 2)})
    assert judge([with_gap]).of("I1: 1 accepted events")


def a_row() -> Row:
    return Row(1, "a fault", "a figure", seed=7)


def test_a_row_that_did_nothing_or_looked_at_nothing_fails() -> None:
    row = a_row()
    with pytest.raises(NothingHappenedError):
        row.injected("a kill of nobody", 0)
    with pytest.raises(NothingHappenedError):
        row.require()
    row.injected("a kill", 4711)
    with pytest.raises(NothingHappenedError):
        row.require()
    row.judged = True
    row.require()


def test_the_table_shows_what_was_measured_against_its_limit() -> None:
    row = a_row()
    row.measured("stall", 0.25, "s", 2.0)
    row.measured("takeover", 9.0, "s", 5.0)
    cells = table([Outcome(row, "test_row_1", "held", 12.0)])[-1].split(" | ")
    assert cells[3] == "stall 0.25 s (limit 2), takeover 9 s (limit 5, missed)"
    assert cells[4] == "held, 12 s, seed 7 |"


@contextmanager
def echoing() -> Iterator[int]:
    """A server on a free port that sends everything back."""

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                there, _ = listener.accept()
                threading.Thread(target=echo, args=(there,), daemon=True).start()

    def echo(there: socket.socket) -> None:
        with there, suppress(OSError):
            while data := there.recv(1 << 16):
                there.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@contextmanager
def through_proxy() -> Iterator[tuple[FaultProxy, Callable[[], socket.socket]]]:
    with echoing() as port, FaultProxy(("127.0.0.1", port), seed=3) as proxy:
        opened: list[socket.socket] = []

        def connect() -> socket.socket:
            opened.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))
            return opened[-1]

        try:
            yield proxy, connect
        finally:
            for one in opened:
                one.close()


def received(client: socket.socket, count: int) -> bytes:
    data = b""
    with suppress(TimeoutError, ConnectionError):
        while len(data) < count and (more := client.recv(count - len(data))):
            data += more
    return data


@pytest.mark.parametrize(
    "toxic",
    [Latency(delay_s=0.05, jitter_s=0.01), Bandwidth(bytes_per_s=1e6), Slicer(bytes=100, variation=50)],
)
@pytest.mark.parametrize("way", list(Way))
def test_toxics_that_only_delay_change_no_byte(toxic: object, way: Way) -> None:
    data = bytes(range(256)) * 20
    with through_proxy() as (proxy, connect):
        proxy.add(way, toxic)
        client = connect()
        began = time.monotonic()
        client.sendall(data)
        assert received(client, len(data)) == data
        assert proxy.touched[type(toxic).__name__]
        assert time.monotonic() - began >= (0.005 if not isinstance(toxic, Slicer) else 0.0)


def test_a_black_hole_swallows_one_direction_and_cuts_what_it_maimed_when_lifted() -> None:
    with through_proxy() as (proxy, connect):
        client = connect()
        proxy.add(Way.DOWN, Timeout())
        client.sendall(b"lost")
        client.settimeout(0.2)
        assert received(client, 4) == b""
        assert proxy.touched["Timeout"] == 4
        proxy.lift(Way.DOWN, Timeout)
        client.settimeout(5)
        assert received(client, 1) == b""
        again = connect()
        again.sendall(b"kept")
        assert received(again, 4) == b"kept"


def test_what_is_swallowed_carries_nothing_any_more_while_new_connections_work() -> None:
    with through_proxy() as (proxy, connect):
        client = connect()
        client.sendall(b"x")
        assert received(client, 1) == b"x"
        assert proxy.swallow() == 1
        client.sendall(b"lost")
        client.settimeout(0.2)
        assert received(client, 4) == b""
        assert proxy.touched["swallowed"] == 4
        again = connect()
        again.sendall(b"kept")
        assert received(again, 4) == b"kept"
        assert len(proxy.accepted_at) == 2


def test_what_is_finished_ends_in_good_order() -> None:
    with through_proxy() as (proxy, connect):
        client = connect()
        client.sendall(b"x")
        assert received(client, 1) == b"x"
        assert proxy.finish() == 1
        assert client.recv(1) == b""


def test_a_limit_lets_exactly_so_many_bytes_through() -> None:
    with through_proxy() as (proxy, connect):
        proxy.add(Way.UP, LimitData(bytes=10))
        client = connect()
        client.sendall(b"0123456789abcdef")
        assert received(client, 16) in (b"", b"0123456789")
        assert proxy.touched["LimitData"] == 1


def test_a_reset_is_one() -> None:
    with through_proxy() as (proxy, connect):
        proxy.add(Way.UP, ResetPeer())
        client = connect()
        client.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_slow_close_comes_late() -> None:
    with through_proxy() as (proxy, connect):
        proxy.add(Way.DOWN, SlowClose(delay_s=0.2))
        client = connect()
        began = time.monotonic()
        client.shutdown(socket.SHUT_WR)
        assert received(client, 1) == b""
        assert time.monotonic() - began >= 0.2


def test_down_refuses_and_ends_what_there_is_until_up() -> None:
    with through_proxy() as (proxy, connect):
        client = connect()
        client.sendall(b"x")
        assert received(client, 1) == b"x"
        proxy.down()
        assert received(client, 1) == b""
        with pytest.raises(OSError):
            connect()
        proxy.up()
        assert connect()
