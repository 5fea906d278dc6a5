"""The figures that actors report and that `status`, `top`, the metrics and the controller read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from relay.model.choices import Overflow

# What a drain of everything may take beyond its own deadline: calls, then the publishers, then the removal.
TAKE_DOWN_GRACE_S = 6.0


class ErrorCode(StrEnum):
    """What can go wrong for a publisher, in kinds. `refused` is every answer of NATS that is an error."""

    REFUSED = "refused"
    TIMEOUT = "timeout"
    MAX_PAYLOAD = "max_payload"
    NATS = "nats"
    LINK = "link"

    @classmethod
    def of(cls, code: str) -> ErrorCode:
        """The kind of an error that is counted under a word of these, or under NATS's number for it."""
        return next((one for one in cls if one == code), cls.REFUSED)


class StreamState(StrEnum):
    """`live` means that data has come on this connection; an open socket alone is `connecting`."""

    CONNECTING = "connecting"
    LIVE = "live"
    BLOCKED = "blocked"
    DRAINING = "draining"
    STOPPED = "stopped"


class LegState(StrEnum):
    """Which instance of a critical stream this is: `hot` is the active one, `warm` the standby. Any other
    stream has an active instance alone. The values are status keys and older than these words."""

    HOT = "hot"
    WARM = "warm"


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmLeg:
    """The standby instance of a critical stream. A `ready` one could take over now without a loss;
    `remembered` counts the events in its replay buffer."""

    node: str
    pid: int
    state: StreamState
    ready: bool
    remembered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """What a stream actor reports. Counts are events of this incarnation.

    The counts balance: `received = acknowledged + queued + in_flight + spilled + conflated + dropped
    + rejected`. `recovered` is the part of `received` that came out of the journal at the start; `repeated`
    events (the exchange sent an id again) were received before and are not counted again. `healed` is the
    part of `received` that a backfill stored in its place; `repaired` is the part of `lost` that a backfill
    gave later, and is not part of `received`. `gaps` counts the entries on the loss ledger, both those with
    ids, whose events `lost` counts, and those without. `reconnects` came after a time without a connection;
    `rotations` replaced a connection without a gap, `silences` one that was dead, and `unaligned` one whose
    overlap with the next could not be aligned.
    `latency` is from the socket's read to the acknowledgement, `relay_latency` to the write to NATS.
    `subscribed_at_ns` and `first_data_at_ns` are Unix times of this incarnation's first, 0 before it.
    `problem` is what an operator has to repair now, `last_error` what happened last, whether or not it is
    over.

    Of a critical stream, this is its active instance; `warm` is its standby, None while there is none.
    `takeovers` counts those since both instances were dead at once.
    """

    stream: str
    venue: str
    symbol: str
    channel: str
    state: StreamState
    overflow: Overflow
    epoch: int = 0
    pid: int
    node: str
    publisher: str | None = None
    linked: bool = False
    received: int = 0
    recovered: int = 0
    acknowledged: int = 0
    queued: int = 0
    in_flight: int = 0
    spilled: int = 0
    conflated: int = 0
    dropped: int = 0
    rejected: int = 0
    repeated: int = 0
    lost: int = 0
    healed: int = 0
    repaired: int = 0
    reconnects: int = 0
    rotations: int = 0
    silences: int = 0
    unaligned: int = 0
    failovers: int = 0
    backlog_bytes: int = 0
    backlog_age_s: float = 0.0
    journal_bytes: int = 0
    last_data_age_s: float | None = None
    rate_per_s: float = 0.0
    bytes_per_s: float = 0.0
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    latency_max_ms: float | None = None
    relay_latency_p50_ms: float | None = None
    relay_latency_p99_ms: float | None = None
    assignment_version: int = 0
    subscribed_at_ns: int = 0
    first_data_at_ns: int = 0
    gaps: int = 0
    journal_max_bytes: int = 0
    last_error: str = ""
    problem: str = ""
    critical: bool = False
    leg: LegState = LegState.HOT
    takeovers: int = 0
    warm: WarmLeg | None = None

    @property
    def key(self) -> str:
        """Which stream this is, such as `usdm:btcusdt@trade`; unique in a relay."""
        return f"{self.venue}:{self.stream}"

    @property
    def backlog_count(self) -> int:
        return self.queued + self.in_flight + self.spilled

    @property
    def missing(self) -> int:
        """Lost, and not repaired since."""
        return max(0, self.lost - self.repaired)

    @property
    def balanced(self) -> bool:
        held = self.queued + self.in_flight + self.spilled
        ended = self.acknowledged + self.conflated + self.dropped + self.rejected
        return self.received == held + ended


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherStats:
    """What a publisher actor reports. `load` is the share of one core that its process used lately;
    `waiting_ms` is how long the oldest message on its way to NATS has been there. `errors_by_code` has NATS's
    own numbers, and words for errors without one. `lively` (a status key) are the streams from which events
    came in the last second or so, with their epochs.
    """

    publisher: str
    pid: int
    node: str
    unix_path: str
    tcp_address: str
    connected: bool
    draining: bool
    streams: tuple[str, ...]
    rate_per_s: float
    bytes_per_s: float
    load: float
    capacity_per_s: float
    queued: int
    in_flight: int
    batches: int
    acknowledged: int
    duplicates: int
    errors: int
    reconnects: int
    ack_p50_ms: float | None
    ack_p99_ms: float | None
    waiting_ms: float = 0.0
    last_error: str = ""
    errors_by_code: Mapping[str, int] = field(default_factory=dict)
    lively: Mapping[str, int] = field(default_factory=dict)


class ScaleMode(StrEnum):
    """Whether the number of publishers follows the load or was set by an operator."""

    AUTO = "auto"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleStatus:
    """`reason` says in a few words why `wanted` is what it is."""

    mode: ScaleMode
    wanted: int
    actual: int
    min: int
    max: int
    reason: str

    @property
    def summary(self) -> str:
        """Such as `2 of 4 publishers (fixed)`."""
        wanted = "" if self.wanted == self.actual else f" of {self.wanted}"
        return f"{self.actual}{wanted} publisher{'s' if self.wanted != 1 else ''} ({self.mode})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What somebody changed, in a few words. `at_ns` is Unix time."""

    at_ns: int
    who: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedStream:
    """A stream that somebody drained; the configuration names it, and it stays stopped until resumed."""

    key: str
    who: str
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Why the relay is not ready, and why it is unhealthy, as sentences; empty when it is not so.

    Ready: every stream has delivered and NATS acknowledges. Unhealthy: the relay cannot recover by itself.
    """

    not_ready: tuple[str, ...] = ()
    unhealthy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PageStatus:
    """Where the status page is. `token_file` holds what allows changes, None when the page only shows."""

    url: str
    token_file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayStatus:
    """The state of the whole relay, as the controller last observed it.

    `pending` actors are not yet, or no longer, what configuration and scale ask for. `ended` holds the final
    figures of streams that are no longer wanted: the configuration names them no more, or they are `stopped`.
    `changes` are the last ones, oldest first. `page` is None while none is served.
    """

    config_version: int
    controller_pid: int
    uptime_s: float
    delivery: str
    scale: ScaleStatus
    streams: tuple[StreamStats, ...]
    publishers: tuple[PublisherStats, ...]
    unreachable: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())
    pending: tuple[str, ...] = ()
    ended: tuple[StreamStats, ...] = ()
    stopped: tuple[StoppedStream, ...] = ()
    changes: tuple[Change, ...] = ()
    health: Health = field(default_factory=Health)
    page: PageStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenDown:
    """What the drain of everything ended with. `silent` streams gave no final figures."""

    streams: tuple[StreamStats, ...]
    silent: tuple[str, ...]

    @property
    def left(self) -> int:
        """Events that stayed in the journals, or are gone where a stream has none."""
        return sum(stats.backlog_count for stats in self.streams)
