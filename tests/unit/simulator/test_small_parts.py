"""Frames, the door, settings and recordings of the simulated exchange."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from relay.binance.streams import StreamKind, Venue
from relay.errors import ConfigError, UsageError
from simulator.catalog import Catalog
from simulator.framing import combined_block, ping_frame, raw_block, text_frame
from simulator.handshake_limits import HANG, HandshakeLimiter, Refusal
from simulator.replay import Recorder, Replay, load_recording
from simulator.settings import ExchangeSettings

LINES = [
    b'1000000000 {"stream":"btcusdt@trade","data":{"e":"trade","t":5}}\n',
    b'1500000000 {"lastUpdateId":9,"bids":[]}\n',
    b'2000000000 {"stream":"btcusdt@trade","data":{"e":"trade","t":6}}\n',
    b'3000000000 {"stream":"btcusdt@bookTicker","data":{"u":1}}\n',
    b'4000000000 {"stream":"btcusdt@trade","data":{"e":"trade","t":7}}\n',
]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
def test_hand_written_frames_are_the_librarys(length: int) -> None:
    payload = b"x" * length
    expected = Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert text_frame(payload) == expected
    assert raw_block([payload, payload]) == expected * 2


@given(payloads=st.lists(st.binary(max_size=300), max_size=5))
def test_the_combined_form_wraps_the_payloads_unchanged(payloads: list[bytes]) -> None:
    wrapped = [b'{"stream":"a@trade","data":' + payload + b"}" for payload in payloads]
    assert combined_block(b"a@trade", payloads) == b"".join(text_frame(text) for text in wrapped)


def test_a_ping_carries_its_payload() -> None:
    assert ping_frame(b"123") == Frame(Opcode.PING, b"123").serialize(mask=False)


def test_the_door_counts_five_minutes_of_attempts_and_then_refuses() -> None:
    door = HandshakeLimiter(3)
    assert [door.knock(at) for at in (0.0, 1.0, 2.0)] == [None] * 3
    assert door.knock(10.0) == Refusal(429, 291)
    assert door.recent(301.5) == 2
    assert door.knock(302.0) is None
    assert door.attempts == 5


def test_a_refusal_ends_after_its_count() -> None:
    door = HandshakeLimiter(100)
    door.refuse(Refusal(HANG), 2)
    assert [door.knock(0.0) for _ in range(3)] == [Refusal(HANG), Refusal(HANG), None]


def test_a_refusal_without_a_count_ends_by_accepting() -> None:
    door = HandshakeLimiter(100)
    door.refuse(Refusal(503, 5), None)
    assert [door.knock(0.0) for _ in range(2)] == [Refusal(503, 5)] * 2
    door.accept()
    assert door.knock(0.0) is None


@pytest.mark.parametrize("how", [200, 301, "softly"])
def test_a_refusal_that_refuses_nothing_is_not_taken(how: int | str) -> None:
    with pytest.raises(UsageError, match="no way to refuse"):
        HandshakeLimiter(1).refuse(Refusal(how), None)


@pytest.mark.parametrize(
    ("wrong", "path", "text"),
    [
        ({"streams": ("!ticker@arr",)}, "streams", "simulated exchange has no"),
        ({"streams": ("btcusdt@fundingRate@1s",)}, "streams", "not a stream"),
        ({"streams": ("dogeusdt@trade",)}, "streams", "does not list"),
        ({"rates": {"dogeusdt@trade": 1.0}}, "rates", "does not list"),
        ({"rates": {"*": -1.0}}, "rates.*", "negative"),
        ({"expected": ("ethusdt@nothing",)}, "expected", "not a stream"),
        ({"speed": 0.0}, "speed", "above 0"),
        ({"rate_scale": 1e-9}, "rate_scale", "too small"),
        ({"quantum": 0}, "quantum", "above 0"),
    ],
)
def test_wrong_settings_are_refused_at_the_start(wrong: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as refused:
        ExchangeSettings(**wrong)
    assert refused.value.path == path


@pytest.mark.parametrize("venue", list(Venue))
def test_settings_left_out_are_the_venues_own(venue: Venue) -> None:
    of = ExchangeSettings(venue=venue)
    spot = venue is Venue.SPOT
    assert (of.ping_s, of.pong_s) == ((20.0, 60.0) if spot else (180.0, 600.0))
    assert of.message_limit == (5 if spot else 10)
    assert of.weight_limit == (6000 if spot else 2400)
    assert len(of.shown_symbols) == 2


def recorded(path: Path, lines: list[bytes]) -> Path:
    with gzip.open(path, "wb") as file:
        file.writelines(lines)
    return path


def test_a_recording_is_split_by_stream_with_its_bytes_unchanged(tmp_path: Path) -> None:
    recording = load_recording(recorded(tmp_path / "r.gz", LINES))
    assert recording.skipped == 1
    assert recording.tracks["btcusdt@trade"].times_s == [0.0, 1.0, 3.0]
    assert recording.tracks["btcusdt@trade"].payloads[0] == b'{"e":"trade","t":5}'
    assert recording.tracks["btcusdt@bookTicker"].times_s == [2.0]


def test_a_clock_that_steps_back_does_not_change_the_order(tmp_path: Path) -> None:
    recording = load_recording(recorded(tmp_path / "r.gz", [LINES[2], LINES[0], LINES[4]]))
    assert recording.tracks["btcusdt@trade"].times_s == [0.0, 0.0, 2.0]


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"1 {}\n"), gzip.compress(b"x" * 99)[:-9]]
)
def test_a_file_without_whole_frames_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.gz"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        load_recording(path)
    assert refused.value.path == "recording"


def test_what_a_recorder_wrote_can_be_replayed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "r.gz")
    recorder.write("a@trade", [b'{"t":1}', b'{"t":2}'], 5_000_000_000)
    recorder.write("b@trade", [b'{"t":9}'], 6_000_000_000)
    recorder.close()
    tracks = load_recording(tmp_path / "r.gz").tracks
    assert tracks["a@trade"].payloads == [b'{"t":1}', b'{"t":2}']
    assert tracks["b@trade"].times_s == [1.0]


def test_a_replay_keeps_the_recorded_pace_times_its_speed(tmp_path: Path) -> None:
    track = load_recording(recorded(tmp_path / "r.gz", LINES)).tracks["btcusdt@trade"]
    replay = Replay(track, StreamKind.TRADE, speed=10.0)
    assert replay.take(100.0, 10) == 0
    replay.begin(100.0)
    assert [replay.take(at, 10) for at in (100.0, 100.09, 100.1, 100.29, 100.31)] == [1, 0, 1, 0, 1]
    assert replay.finished


def test_a_replay_heals_only_what_it_has_sent(tmp_path: Path) -> None:
    replay = Replay(
        load_recording(recorded(tmp_path / "r.gz", LINES)).tracks["btcusdt@trade"], StreamKind.TRADE, 1.0
    )
    replay.make(2, 0)
    assert replay.after(6, 10) == [b'{"e":"trade","t":6}']
    assert replay.newest(10) == [b'{"e":"trade","t":5}', b'{"e":"trade","t":6}']


def test_a_recording_starts_once_all_its_streams_have_a_subscriber(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.gz", LINES)
    catalog = Catalog(ExchangeSettings(recording=path, expected=("*",)), load_recording(path))
    catalog.subscribed("btcusdt@trade", 1.0)
    assert not catalog.started
    catalog.subscribed("btcusdt@bookTicker", 2.0)
    assert catalog.started
    assert {name: channel.due_s for name, channel in catalog.channels.items()} == {
        "btcusdt@trade": 2.0,
        "btcusdt@bookTicker": 4.0,
    }


def test_a_recording_shows_its_own_streams_alone_and_cannot_be_flooded(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.gz", LINES)
    catalog = Catalog(ExchangeSettings(recording=path), load_recording(path))
    assert catalog.flowing("btcusdt@trade", "public")
    assert not catalog.flowing("btcusdt@trade", "market")
    assert not catalog.flowing("ethusdt@trade", "public")
    with pytest.raises(UsageError, match="recording"):
        catalog.flood("btcusdt@trade", 5.0, 0.0)


def test_a_flood_told_before_the_first_subscription_holds_from_it_on() -> None:
    catalog = Catalog(ExchangeSettings(), None)
    catalog.flood("btcusdt@trade", 1000.0, 0.0)
    catalog.subscribed("btcusdt@trade", 5.0)
    assert catalog.ensure("btcusdt@trade", 5.0).due_s == 5.0


def test_exact_rates_replace_the_model_for_named_and_for_all_other_streams() -> None:
    catalog = Catalog(ExchangeSettings(rates={"btcusdt@trade": 4.0, "*": 0.0}), None)
    catalog.start(0.0)
    assert catalog.ensure("btcusdt@trade", 0.0).due_s <= 0.25
    assert catalog.ensure("ethusdt@trade", 0.0).due_s == float("inf")
