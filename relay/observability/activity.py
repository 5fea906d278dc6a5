"""What happened between two statuses of the relay, in words: losses, rotations, restarts, scaling. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from relay.model.stats import PublisherStats, RelayStatus, StreamState, StreamStats
from relay.primitives.text import count


class Severity(StrEnum):
    """BAD: data is or may be lost. WARN: something failed, and the relay recovered. INFO: as it should be."""

    BAD = "bad"
    WARN = "warn"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class ActivityEntry:
    """Entries with the same `kind` and `about` may be merged. `{n}` in `text` stands for `amount`."""

    kind: str
    about: str
    severity: Severity
    text: str
    amount: int = 1

    def __str__(self) -> str:
        return self.text.replace("{n}", count(self.amount))


# Counters of StreamStats whose growth is worth an entry; those that grow with every event are left out.
_COUNTED: Mapping[str, tuple[Severity, str]] = {
    "lost": (Severity.BAD, "lost {n}, which the exchange sent and nobody received"),
    "dropped": (Severity.BAD, "dropped {n}, as its overflow policy says"),
    "unaligned": (Severity.BAD, "replaced a connection without an overlap; events may be missing"),
    "rejected": (Severity.WARN, "rejected {n} that are not what the stream promises"),
    "conflated": (Severity.WARN, "replaced {n} snapshots by later ones, memory being full"),
    "reconnects": (Severity.WARN, "reconnected to the exchange"),
    "silences": (Severity.WARN, "left a silent connection for a second one"),
    "failovers": (Severity.WARN, "lost its publisher and went to another one"),
    "healed": (Severity.INFO, "had {n} missing events filled in over REST"),
    "repaired": (Severity.INFO, "had {n} lost events repaired over REST"),
    "rotations": (Severity.INFO, "rotated its connection without a gap"),
}


def diff_status(before: RelayStatus, after: RelayStatus) -> list[ActivityEntry]:
    return [
        *_stream_entries(before, after),
        *_publisher_entries(before, after),
        *_pool_entries(before, after),
        *_problem_entries(before, after),
    ]


def _stream_entries(before: RelayStatus, after: RelayStatus) -> Iterator[ActivityEntry]:
    old = {stats.key: stats for stats in before.streams}
    new = {stats.key: stats for stats in after.streams}
    for key, stats in new.items():
        if key in old:
            yield from _one_stream_entries(key, old[key], stats)
        if stats.first_data_at_ns and (key not in old or not old[key].first_data_at_ns):
            yield ActivityEntry("data", key, Severity.INFO, "had its first data")
    for key in old:
        if key not in new:
            yield ActivityEntry("ended", key, Severity.INFO, "ended")


def _one_stream_entries(key: str, old: StreamStats, new: StreamStats) -> Iterator[ActivityEntry]:
    if new.epoch != old.epoch:
        yield ActivityEntry("restarted", key, Severity.WARN, f"started again, as epoch {new.epoch}")
        return
    if new.gaps > old.gaps and new.lost == old.lost:
        # With ids, the number of lost ones tells more.
        text = "has {n} gaps on the loss ledger; no ids tell whether anything was in them"
        yield ActivityEntry("gaps", key, Severity.BAD, text, new.gaps - old.gaps)
    for name, (weight, text) in _COUNTED.items():
        grown = getattr(new, name) - getattr(old, name)
        if grown > 0:
            yield ActivityEntry(name, key, weight, text, grown)
    blocked = StreamState.BLOCKED
    if new.state is blocked is not old.state:
        yield ActivityEntry("blocked", key, Severity.BAD, "stopped reading: nothing more fits")
    elif old.state is blocked is not new.state:
        yield ActivityEntry("unblocked", key, Severity.INFO, "reads again")


def _publisher_entries(before: RelayStatus, after: RelayStatus) -> Iterator[ActivityEntry]:
    old = {stats.publisher: stats for stats in before.publishers}
    new = {stats.publisher: stats for stats in after.publishers}
    for name, stats in new.items():
        if name in old:
            yield from _one_publisher_entries(name, old[name], stats)
        else:
            yield ActivityEntry("joined", name, Severity.INFO, "serves now")
    for name in old:
        if name not in new:
            yield ActivityEntry("left", name, Severity.INFO, "ended")


def _one_publisher_entries(name: str, old: PublisherStats, new: PublisherStats) -> Iterator[ActivityEntry]:
    if new.pid != old.pid:
        yield ActivityEntry("restarted", name, Severity.WARN, "started again")
    elif new.errors > old.errors:
        why = f": {new.last_error}" if new.last_error else ""
        text = f"had {{n}} refusals by NATS{why}"
        yield ActivityEntry("errors", name, Severity.WARN, text, new.errors - old.errors)
    if old.connected and not new.connected:
        yield ActivityEntry("disconnected", name, Severity.BAD, "has no connection to NATS")
    elif new.connected and not old.connected:
        yield ActivityEntry("connected", name, Severity.INFO, "is connected to NATS")


def _pool_entries(before: RelayStatus, after: RelayStatus) -> Iterator[ActivityEntry]:
    old, new = before.scale, after.scale
    if (old.wanted, old.mode) != (new.wanted, new.mode):
        reason = f": {new.reason}" if new.reason else ""
        text = f"wants {new.wanted} instead of {old.wanted}, {new.mode}{reason}"
        yield ActivityEntry("scale", "pool", Severity.INFO, text)


def _problem_entries(before: RelayStatus, after: RelayStatus) -> Iterator[ActivityEntry]:
    # An actor that starts has never answered; if that lasts, `problems` says so.
    answered = {one.key for one in before.streams} | {one.publisher for one in before.publishers}
    for name in after.unreachable:
        if name in answered and name not in before.unreachable:
            yield ActivityEntry("silent", name, Severity.WARN, "does not answer")
    for problem in after.problems:
        if problem_fingerprint(problem) not in map(problem_fingerprint, before.problems):
            yield ActivityEntry("problem", problem_fingerprint(problem), Severity.WARN, problem)


def problem_fingerprint(problem: str) -> str:
    """The part of its text that stays the same while a problem lasts: all but the digits."""
    return "".join(c for c in problem if not c.isdigit())
