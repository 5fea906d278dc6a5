"""Exact counts and digests of what one stream sent, to compare with what a consumer received."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import blake2b
from struct import Struct

from relay.binance.streams import StreamKind
from simulator.payloads import event_id

_LENGTH = Struct(">I").pack
DIGEST_BYTES = 16
# Further runs are counted in `unseen` but not listed, which bounds memory.
_MAX_RANGES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The report of one stream.

    `count` and `bytes` are frames written to sockets and their payload bytes, over all sockets. `events`
    are the distinct events made while a socket could take them; `first_id`, `last_id`, `digest` and
    `last_sent_ns` are theirs. `digest` is blake2b over each payload behind its length as four big-endian
    bytes. `unseen` events had no listener; `unseen_ranges` are their first and last ids, run by run.
    `withheld` events came due while every client was too slow and were never made; `cut` frames were queued
    for a socket that ended before they were written.
    """

    stream: str
    count: int
    bytes: int
    events: int
    first_id: int | None
    last_id: int | None
    digest: str
    last_sent_ns: int | None
    unseen: int
    unseen_ranges: tuple[tuple[int, int], ...]
    withheld: int
    cut: int
    subscribers: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class SentTally:
    """Accumulates one stream's `Sent`."""

    def __init__(self, stream: str, kind: StreamKind | None) -> None:
        self.withheld = 0
        self.cut = 0
        self._stream = stream
        self._kind = kind
        self._frames = 0
        self._bytes = 0
        self._events = 0
        self._first: bytes | None = None
        self._last: bytes | None = None
        self._last_sent_ns: int | None = None
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self._unseen = 0
        self._run: tuple[bytes, bytes] | None = None
        self._ranges: list[tuple[int, int]] = []

    @property
    def events(self) -> int:
        return self._events

    def add_sent(self, payloads: list[bytes], now_ns: int) -> None:
        """Add events that are delivered to at least one socket."""
        self._end_run()
        if self._first is None:
            self._first = payloads[0]
        self._last = payloads[-1]
        self._last_sent_ns = now_ns
        self._events += len(payloads)
        self._digest.update(
            b"".join([part for payload in payloads for part in (_LENGTH(len(payload)), payload)])
        )

    def add_written(self, frames: int, payload_bytes: int) -> None:
        self._frames += frames
        self._bytes += payload_bytes

    def add_unseen(self, payloads: list[bytes]) -> None:
        """Add events that no socket got."""
        self._unseen += len(payloads)
        first = self._run[0] if self._run else payloads[0]
        self._run = (first, payloads[-1])

    def _end_run(self) -> None:
        if self._run is not None:
            if len(self._ranges) < _MAX_RANGES:
                self._ranges += self._run_ids()
            self._run = None

    def _run_ids(self) -> list[tuple[int, int]]:
        """The present run of unseen events; empty without one, or without ids."""
        first, last = (self._id(payload) for payload in self._run or (None, None))
        return [] if first is None or last is None else [(first, last)]

    def sent(self, subscribers: int) -> Sent:
        return Sent(
            stream=self._stream,
            count=self._frames,
            bytes=self._bytes,
            events=self._events,
            first_id=self._id(self._first),
            last_id=self._id(self._last),
            digest=self._digest.hexdigest(),
            last_sent_ns=self._last_sent_ns,
            unseen=self._unseen,
            unseen_ranges=(*self._ranges, *self._run_ids()),
            withheld=self.withheld,
            cut=self.cut,
            subscribers=subscribers,
        )

    def _id(self, payload: bytes | None) -> int | None:
        return event_id(self._kind, payload) if payload is not None else None
