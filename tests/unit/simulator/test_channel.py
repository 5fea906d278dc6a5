"""One stream: who gets its events, what slow readers do to it, and the account of it all."""

from __future__ import annotations

from hashlib import blake2b
from itertools import count

import orjson

from relay.binance.streams import StreamKind
from simulator.channel import Channel
from simulator.traffic import Uniform

NOW_NS = 1_767_225_600_000_000_000


class Counting:
    """Makes trades numbered from 1."""

    def __init__(self) -> None:
        self._ids = count(1)

    def make(self, count: int, now_ms: int) -> list[bytes]:
        return [b'{"e":"trade","t":%d,"E":%d}' % (next(self._ids), now_ms) for _ in range(count)]


class Reader:
    def __init__(self) -> None:
        self.paused = False
        self.open = True
        self.got: list[int] = []

    def push(self, channel: Channel, payloads: list[bytes]) -> bool:
        if self.open:
            self.got += [orjson.loads(payload)["t"] for payload in payloads]
            channel.tally.add_written(len(payloads), sum(map(len, payloads)))
        return self.open


def channel(rate: float = 10.0, max_owed_s: float = 1.0) -> Channel:
    made = Channel("btcusdt@trade", StreamKind.TRADE, Counting(), max_owed_s)
    made.start(Uniform(rate, 0.0))
    return made


def run(of: Channel, *times_s: float, quantum: int = 1000) -> None:
    for now_s in times_s:
        while of.step(now_s, NOW_NS + int(now_s * 1e9), quantum):
            pass


def test_every_listener_gets_the_same_events() -> None:
    of, first, second = channel(), Reader(), Reader()
    of.add(first)
    of.add(second)
    run(of, 0.0, 0.35, 1.0)
    assert first.got == second.got == list(range(1, 12))
    assert (of.sent().count, of.sent().events) == (22, 11)


def test_one_step_hands_out_no_more_than_its_quantum() -> None:
    of, reader = channel(rate=1000.0), Reader()
    of.add(reader)
    assert of.step(0.5, NOW_NS, 100)
    assert len(reader.got) == 100


def test_nothing_is_made_while_every_listener_is_paused() -> None:
    of, reader = channel(), Reader()
    of.add(reader)
    reader.paused = True
    run(of, 0.5)
    assert (of.stalled, reader.got, of.sent().events) == (True, [], 0)
    reader.paused = False
    run(of, 0.5)
    assert reader.got == [1, 2, 3, 4, 5, 6]


def test_what_stays_due_too_long_is_never_made_and_is_counted() -> None:
    of, reader = channel(rate=10.0, max_owed_s=1.0), Reader()
    of.add(reader)
    reader.paused = True
    run(of, 5.0)
    reader.paused = False
    run(of, 5.05)
    sent = of.sent()
    assert sent.withheld + sent.events == 51
    assert 10 <= sent.events <= 11
    assert reader.got == list(range(1, sent.events + 1))


def test_a_paused_listener_does_not_hold_up_another() -> None:
    of, slow, fast = channel(), Reader(), Reader()
    of.add(slow)
    of.add(fast)
    slow.paused = True
    run(of, 1.0)
    assert fast.got == list(range(1, 12))


def test_ids_advance_unseen_while_nobody_listens() -> None:
    of, reader = channel(), Reader()
    of.add(reader)
    run(of, 0.45)
    of.remove(reader)
    run(of, 0.95)
    of.add(reader)
    run(of, 1.25)
    assert reader.got == [1, 2, 3, 4, 5, 11, 12, 13]
    sent = of.sent()
    assert (sent.events, sent.unseen, sent.unseen_ranges) == (8, 5, ((6, 10),))
    assert (sent.first_id, sent.last_id) == (1, 13)


def test_asking_for_the_account_does_not_split_a_run_of_unseen_events() -> None:
    of = channel()
    run(of, 0.45)
    assert of.sent().unseen_ranges == ((1, 5),)
    run(of, 0.95)
    assert of.sent().unseen_ranges == ((1, 10),)


def test_what_a_closing_listener_refuses_counts_as_unseen() -> None:
    of, reader = channel(), Reader()
    of.add(reader)
    reader.open = False
    run(of, 0.45)
    assert (of.sent().events, of.sent().unseen) == (0, 5)


def test_silence_strikes_the_present_subscribers_alone() -> None:
    of, old, new = channel(), Reader(), Reader()
    of.add(old)
    of.silence(everybody=False)
    of.add(new)
    run(of, 0.35)
    assert (old.got, new.got) == ([], [1, 2, 3, 4])
    assert of.subscribers == 2


def test_silence_for_everybody_strikes_later_subscribers_too() -> None:
    of, old, new = channel(), Reader(), Reader()
    of.add(old)
    of.silence(everybody=True)
    of.add(new)
    run(of, 0.35)
    of.unsilence()
    run(of, 0.45)
    assert old.got == new.got == [5]
    assert of.sent().unseen_ranges == ((1, 4),)


def test_a_flood_replaces_the_rate_until_calm() -> None:
    of, reader = channel(rate=1.0), Reader()
    of.add(reader)
    run(of, 0.0)
    of.flood(1000.0, 0.1)
    run(of, 0.2)
    assert len(reader.got) == 1 + 101
    of.calm(0.2)
    run(of, 0.9)
    assert len(reader.got) == 102
    run(of, 1.0)
    assert len(reader.got) == 103


def test_a_flood_of_nothing_halts_the_stream() -> None:
    of, reader = channel(), Reader()
    of.add(reader)
    of.flood(0.0, 0.0)
    run(of, 100.0)
    assert reader.got == []


def test_emitted_events_come_besides_the_ordinary_ones() -> None:
    of, reader = channel(rate=0.0), Reader()
    of.add(reader)
    of.emit(25)
    run(of, 0.0, quantum=10)
    assert reader.got == list(range(1, 26))


def test_after_a_stop_nothing_is_made() -> None:
    of, reader = channel(), Reader()
    of.add(reader)
    of.emit(5)
    of.stop()
    run(of, 10.0)
    assert reader.got == []


def test_the_digest_covers_every_distinct_event_in_order() -> None:
    of, reader = channel(rate=0.0), Reader()
    of.add(reader)
    of.emit(3)
    run(of, 0.0)
    expected = blake2b(digest_size=16)
    for payload in Counting().make(3, NOW_NS // 1_000_000):
        expected.update(len(payload).to_bytes(4, "big") + payload)
    sent = of.sent()
    assert sent.digest == expected.hexdigest()
    assert sent.bytes == sum(map(len, Counting().make(3, NOW_NS // 1_000_000)))
    assert sent.last_sent_ns == NOW_NS
