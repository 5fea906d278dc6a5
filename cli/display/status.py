"""The live table of `top` and `demo`: a RelayStatus as lines of at most `width` characters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cli.display.terminal import Cell, Column, Tone, bar, fit_columns, header, paint, row, short
from relay.model.stats import PublisherStats, RelayStatus, StreamState, StreamStats
from relay.primitives.text import age, clip, count, millis, rate

MAX_WIDTH = 100
# All backlog bars share one scale. A full bar means at least this many events, so that a few do not look
# alarming.
MIN_FULL_BAR = 1000
LATE_S = 1.0
BUSY_LOAD = 0.85
_BAR_WIDTH = 12
_NARROW = 96
_MIN_NAME_WIDTH = 14

_STATE_TONES = {
    StreamState.CONNECTING: Tone.WARN,
    StreamState.LIVE: Tone.GOOD,
    StreamState.BLOCKED: Tone.BAD,
    StreamState.DRAINING: Tone.WARN,
    StreamState.STOPPED: Tone.DIM,
}


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a phase, in seconds or events; `note` says what happens now."""

    done: float
    total: float
    note: str = ""
    unit: str = "s"

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total > 0 else 1.0

    def __str__(self) -> str:
        return f"{min(self.done, self.total):,.0f} of {self.total:,.0f} {self.unit}  {self.note}".rstrip()


def render(
    status: RelayStatus, *, width: int = MAX_WIDTH, colour: bool = False, progress: Progress | None = None
) -> list[str]:
    width = min(width, MAX_WIDTH)
    lines = [paint(clip(_headline(status), width), Tone.STRONG, colour=colour)]
    if progress is not None:
        lines.append(clip(f"{bar(progress.share, 40)} {progress}", width))
    lines += ["", *_stream_lines(status.streams, width, colour=colour)]
    lines += [clip(line, width) for line in _critical_lines(status.streams)]
    lines += ["", *_publisher_lines(status.publishers, width, colour=colour)]
    for problem in _problems(status):
        lines.append(paint(clip(problem, width), Tone.BAD, colour=colour))
    return lines


def summary_line(status: RelayStatus, width: int = MAX_WIDTH) -> str:
    """The relay in one line, for logs and for output that is not a terminal."""
    live = sum(s.state is StreamState.LIVE for s in status.streams)
    backlog = sum(s.backlog_count for s in status.streams)
    parts = [
        f"{live}/{len(status.streams)} streams live",
        f"{rate(sum(s.rate_per_s for s in status.streams))} msg/s",
        f"backlog {count(backlog)}" + _worst(status.streams),
        f"p99 {millis(max((s.latency_p99_ms or 0.0 for s in status.streams), default=0.0))} ms",
        f"lost {count(sum(s.missing for s in status.streams))}",
        status.scale.summary,
    ]
    return clip(", ".join(parts), width)


def _worst(streams: Sequence[StreamStats]) -> str:
    deepest = max(streams, key=lambda s: s.backlog_count, default=None)
    return f" (most: {deepest.stream})" if deepest is not None and deepest.backlog_count else ""


def _headline(status: RelayStatus) -> str:
    scale = status.scale
    reason = f": {scale.reason}" if scale.reason else ""
    return (
        f"Sluice  {len(status.streams)} streams  {scale.summary}, {scale.min} to {scale.max}{reason}"
        f"  {status.delivery}  up {age(status.uptime_s)}"
    )


def _stream_lines(streams: Sequence[StreamStats], width: int, *, colour: bool) -> list[str]:
    wide = width >= _NARROW
    columns = fit_columns(_stream_columns(wide=wide), width, _MIN_NAME_WIDTH)
    full = max(MIN_FULL_BAR, *(s.backlog_count for s in streams), 0)
    venues = len({s.venue for s in streams}) > 1
    lines = [header(columns, colour=colour)]
    for stream in streams:
        cells = _stream_cells(stream, full if wide else 0, name_venue=venues)
        lines.append(row(columns, cells, colour=colour))
    lines.append(row(columns, _total_cells(streams, wide=wide), colour=colour))
    return lines


def _critical_lines(streams: Sequence[StreamStats]) -> list[str]:
    critical = [one for one in streams if one.critical]
    if not critical:
        return []
    ready = sum(one.warm is not None and one.warm.ready for one in critical)
    takeovers = sum(one.takeovers for one in critical)
    return [f"critical: {ready} of {len(critical)} with a standby that is ready, takeovers: {takeovers}"]


def _stream_columns(*, wide: bool) -> list[Column]:
    columns = [
        Column("stream", 0, right=False),
        Column("state", 10, right=False),
        Column("msg/s", 7),
        Column("backlog", 8),
        Column("age", 6),
        Column("", _BAR_WIDTH, right=False),
        Column("p50 ms", 6),
        Column("p99 ms", 6),
        Column("lost", 7),
    ]
    return columns if wide else [column for column in columns if column.title]


def _stream_cells(stream: StreamStats, full: int, *, name_venue: bool) -> list[Cell]:
    """`full` is the backlog of a full bar; 0 leaves the bar out."""
    late = Tone.WARN if stream.backlog_age_s >= LATE_S else Tone.PLAIN
    name = stream.key if name_venue else stream.stream
    bars = [Cell(bar(stream.backlog_count / full, _BAR_WIDTH), late)] if full else []
    return [
        Cell(name),
        Cell(stream.state.value, _STATE_TONES[stream.state]),
        Cell(rate(stream.rate_per_s)),
        Cell(count(stream.backlog_count), late),
        Cell(age(stream.backlog_age_s), late),
        *bars,
        Cell(millis(stream.latency_p50_ms)),
        Cell(millis(stream.latency_p99_ms)),
        Cell(count(stream.missing), Tone.BAD if stream.missing else Tone.PLAIN),
    ]


def _total_cells(streams: Sequence[StreamStats], *, wide: bool) -> list[Cell]:
    lost = sum(s.missing for s in streams)
    return [
        Cell("total", Tone.STRONG),
        Cell(""),
        Cell(rate(sum(s.rate_per_s for s in streams)), Tone.STRONG),
        Cell(count(sum(s.backlog_count for s in streams)), Tone.STRONG),
        Cell(age(max((s.backlog_age_s for s in streams), default=0.0)), Tone.STRONG),
        *([Cell("")] if wide else []),
        Cell(""),
        Cell(""),
        Cell(count(lost), Tone.BAD if lost else Tone.STRONG),
    ]


def _publisher_lines(publishers: Sequence[PublisherStats], width: int, *, colour: bool) -> list[str]:
    columns = fit_columns(
        [
            Column("publisher", 14, right=False),
            Column("load", 12, right=False),
            Column("", 5),
            Column("msg/s", 8),
            Column("ack p99", 8),
            Column("streams", 0, right=False),
        ],
        width,
        _MIN_NAME_WIDTH,
    )
    lines = [header(columns, colour=colour)]
    lines += [row(columns, _publisher_cells(publisher), colour=colour) for publisher in publishers]
    return lines


def _publisher_cells(publisher: PublisherStats) -> list[Cell]:
    tone = Tone.WARN if publisher.load >= BUSY_LOAD else Tone.GOOD
    mark = "draining: " if publisher.draining else "" if publisher.connected else "no NATS: "
    return [
        Cell(publisher.publisher, Tone.PLAIN if publisher.connected else Tone.BAD),
        Cell(bar(publisher.load, 12), tone),
        Cell(f"{publisher.load:.0%}"),
        Cell(rate(publisher.rate_per_s)),
        Cell(millis(publisher.ack_p99_ms)),
        Cell(f"{mark}{len(publisher.streams)}: {', '.join(short(publisher.streams))}"),
    ]


def _problems(status: RelayStatus) -> list[str]:
    silent = [f"does not answer: {name}" for name in status.unreachable]
    return [*silent, *(f"problem: {text}" for text in status.problems)]
