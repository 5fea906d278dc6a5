"""Recorded files: one gzip text line a frame, `<receive time in ns> <combined-stream JSON>`."""

from __future__ import annotations

import gzip
import re
from bisect import bisect_right
from dataclasses import dataclass
from math import inf
from pathlib import Path

from relay.binance.streams import StreamKind
from relay.errors import ConfigError
from simulator.framing import combined
from simulator.payloads import event_id

_LINE = re.compile(rb'(\d+) \{"stream":"([^"]+)","data":(.*)\}\s*', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Track:
    """One stream's events: seconds since the recording's first frame, and the payloads' bytes."""

    times_s: list[float]
    payloads: list[bytes]


@dataclass(frozen=True, slots=True)
class Recording:
    """`skipped` counts the lines that are no stream frames, such as REST snapshots that a recorder adds."""

    tracks: dict[str, Track]
    skipped: int


def load_recording(path: Path) -> Recording:
    """Raises ConfigError for a file that cannot be read or holds no frames."""
    tracks: dict[str, Track] = {}
    skipped, first_ns = 0, -1
    try:
        with gzip.open(path) as lines:
            for line in lines:
                found = _LINE.fullmatch(line)
                if found is None:
                    skipped += 1
                    continue
                at_ns, name = int(found[1]), found[2].decode()
                first_ns = at_ns if first_ns < 0 else first_ns
                track = tracks.setdefault(name, Track([], []))
                # A recorder's clock may step back; the order of the file counts.
                earliest = track.times_s[-1] if track.times_s else 0.0
                track.times_s.append(max((at_ns - first_ns) / 1e9, earliest))
                track.payloads.append(found[3])
    except (OSError, EOFError) as error:
        raise ConfigError("recording", f"{path} cannot be read: {error}") from error
    if not tracks:
        raise ConfigError(
            "recording", f"{path} holds no stream frames", "each line is `<ns> <combined JSON>`"
        )
    return Recording(tracks, skipped)


class Replay:
    """Arrivals, payloads and history of one recorded stream, at `speed` times its recorded pace.

    Nothing is due before `begin`.
    """

    def __init__(self, track: Track, kind: StreamKind | None, speed: float) -> None:
        self._track = track
        self._kind = kind
        self._start_s = inf
        self._speed = speed
        self._taken = 0
        self._made = 0

    def begin(self, start_s: float) -> None:
        self._start_s = start_s

    def take_due(self, until_s: float, limit: float) -> int:
        if until_s < self._start_s:
            return 0
        due = bisect_right(self._track.times_s, until_s, self._taken, key=self._at_s) - self._taken
        count = int(min(due, limit))
        self._taken += count
        return count

    @property
    def next_s(self) -> float:
        if self.finished:
            return inf
        return self._at_s(self._track.times_s[self._taken])

    def _at_s(self, recorded_s: float) -> float:
        return self._start_s + recorded_s / self._speed

    @property
    def finished(self) -> bool:
        return self._taken == len(self._track.times_s)

    def make(self, count: int, now_ms: int) -> list[bytes]:
        made = self._track.payloads[self._made : self._made + count]
        self._made += count
        return made

    def after(self, from_id: int, limit: int) -> list[bytes]:
        """What REST may show: trades already sent, ids being contiguous in a recording."""
        first = event_id(self._kind, self._track.payloads[0]) or 0
        start = min(max(from_id - first, 0), self._made)
        return self._track.payloads[start : min(start + limit, self._made)]

    def newest(self, limit: int) -> list[bytes]:
        return self._track.payloads[max(self._made - limit, 0) : self._made]


class Recorder:
    """Writes what was sent in the format that `load_recording` reads."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.GzipFile(path, "wb", compresslevel=1)

    def write(self, stream: str, payloads: list[bytes], now_ns: int) -> None:
        name = stream.encode()
        self._file.write(b"".join([b"%d %b\n" % (now_ns, combined(name, payload)) for payload in payloads]))

    def close(self) -> None:
        self._file.close()
