"""Recordings: written, read and replayed at their own pace."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from relay.binance.streams import StreamKind
from relay.errors import ConfigError
from simulator.replay import Recorder, Replay, load_recording
from tests.support.recordings import LINES, recorded


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
    assert replay.take_due(100.0, 10) == 0
    replay.begin(100.0)
    assert [replay.take_due(at, 10) for at in (100.0, 100.09, 100.1, 100.29, 100.31)] == [1, 0, 1, 0, 1]
    assert replay.finished


def test_a_replay_heals_only_what_it_has_sent(tmp_path: Path) -> None:
    replay = Replay(
        load_recording(recorded(tmp_path / "r.gz", LINES)).tracks["btcusdt@trade"], StreamKind.TRADE, 1.0
    )
    replay.make(2, 0)
    assert replay.after(6, 10) == [b'{"e":"trade","t":6}']
    assert replay.newest(10) == [b'{"e":"trade","t":5}', b'{"e":"trade","t":6}']
