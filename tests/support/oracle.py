"""What must hold after any fault, judged from what the exchange made (W), what was accepted (A), what
JetStream holds (C) and the loss ledger. The judging is pure; `read_stored` reads, without acknowledging.

I1 A - C is empty             I5 W - C is what the ledger says, exactly
I2 no duplicates in C         I6 other streams are complete (their latency is a figure, not judged)
I3 order strictly rising      I7 memory, descriptors and threads come back
I4 running hashes are equal   I8 no unhandled exception in any log
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import nats
import orjson
from nats.js.api import ConsumerConfig, DeliverPolicy

from relay.audit.message import open_envelope
from relay.binance.streams import StreamSpec
from relay.errors import FencedError, SteppedDown
from relay.journal.segments import Found, current_segments, scan, segment_named
from relay.model.record_batch import RecordKind, head
from simulator.payloads import event_id

# The wall clock's time of a loss of a stream without ids, against the exchange's: frames in the kernel.
LEDGER_SLACK_NS = 1_500_000_000
# A zombie that learns of its successor ends itself, and logs it; so does an instance that steps down.
MEANT = re.compile(f"{FencedError.__name__}|{SteppedDown.__name__}")
_ENTRY = re.compile(r"(?m)^(?=\d{4}-\d\d-\d\d )")
TROUBLE = re.compile(r"Traceback \(most recent|\bCRITICAL\b|exception was never retrieved|was never awaited")
READ_TIMEOUT_S = 10.0
# Kinds whose ids have no gaps.
CONTIGUOUS = ("trade", "aggTrade", "blockTrade")


class Wired(NamedTuple):
    """One event of the exchange; `seen` says that some socket got it."""

    at_ns: int
    seen: bool
    payload: bytes


class Stored(NamedTuple):
    """One event in JetStream; `stored_ns` is the server's own time. What REST gave is the same event, not the
    same bytes."""

    sequence: int
    message_id: str
    epoch: int
    seq: int
    recv_ns: int
    stored_ns: int
    payload: bytes
    from_rest: bool = False

    @property
    def latency_ms(self) -> float:
        return (self.stored_ns - self.recv_ns) / 1e6


class Loss(NamedTuple):
    """One entry of the ledger; ids are None where the stream has none."""

    stream: str
    first_id: int | None
    last_id: int | None
    count: int | None  # type: ignore[assignment] # It hides tuple's method, which nobody calls.
    cause: str
    from_ns: int
    to_ns: int
    healed: bool

    @property
    def ids(self) -> range:
        return range(0) if self.first_id is None or self.last_id is None else _span(self)


def _span(loss: Loss) -> range:
    assert loss.first_id is not None and loss.last_id is not None
    return range(loss.first_id, loss.last_id + 1)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Of one stream. `accepted` are epochs and seqs that an ended incarnation had in its journal;
    `acknowledged` counts what the last one says is stored, None if nobody is there to ask. `repaired` events
    were stored beside the stream, out of its order."""

    spec: StreamSpec
    wired: Sequence[Wired]
    stored: Sequence[Stored]
    losses: Sequence[Loss] = ()
    accepted: Collection[tuple[int, int]] = ()
    repaired: Sequence[Stored] = ()
    balanced: bool = True


@dataclass(kw_only=True)
class Findings:
    """`violations` are sentences that begin with the invariant; the counts are of all streams together.
    `moments` has the times of what they are about, Unix time in ns, where there is one."""

    violations: list[str] = field(default_factory=list)
    moments: dict[str, int] = field(default_factory=dict)
    wired: int = 0
    stored: int = 0
    missing: int = 0
    repaired: int = 0

    def of(self, invariant: str) -> list[str]:
        return [one for one in self.violations if one.startswith(invariant)]


def judge(evidence: Iterable[Evidence]) -> Findings:
    findings = Findings()
    for one in evidence:
        findings.wired += len(one.wired)
        findings.stored += len(one.stored)
        findings.repaired += len(one.repaired)
        missing = _missing(one)
        findings.missing += len(missing)
        for what, at_ns in _broken(one, missing):
            findings.violations.append(f"{what} ({one.spec.key})")
            if at_ns is not None:
                findings.moments[findings.violations[-1]] = at_ns
    return findings


# A sentence, and the time of what it is about, where that is known.
Broken = tuple[str, int | None]


def _broken(one: Evidence, missing: Sequence[Wired]) -> Iterator[Broken]:
    held = {(stored.epoch, stored.seq) for stored in (*one.stored, *one.repaired)}
    held.update(_stored_before(one))
    if lost := sorted(set(one.accepted) - held):
        yield f"I1: {len(lost)} accepted events are not stored, the first is {lost[0]}", None
    if not one.balanced:
        yield "I1: the actor's counts do not balance", None
    counted = Counter(stored.message_id for stored in one.stored)
    if twice := [stored for stored in one.stored if counted[stored.message_id] > 1]:
        first = twice[0]
        text = f"I2: {len({stored.message_id for stored in twice})} events are stored twice, the first is"
        yield f"{text} {first.message_id}", first.recv_ns
    yield from _disorder(one)
    yield from _difference(one, missing)
    yield from _unannounced(one, missing)


def _stored_before(one: Evidence) -> Iterator[tuple[int, int]]:
    """What died between the publisher and its journal is stored, and the successor does not know it: it asks
    REST for it, counts it, and the store takes it for the repeat that it is. Its ids count down, without a
    gap, from the first event that the successor did store."""
    if one.spec.kind.value not in CONTIGUOUS:
        return
    numbers = [_id(one.spec, stored.payload) for stored in one.stored]
    behind = set[int | None]()
    for (before, after), number in zip(pairwise(one.stored), numbers, strict=False):
        behind.add(number)
        first = _id(one.spec, after.payload)
        if after.epoch == before.epoch or first is None:
            continue
        for back in range(1, after.seq):
            if first - back in behind:
                yield after.epoch, after.seq - back


def _disorder(one: Evidence) -> Iterator[Broken]:
    for before, after in pairwise(one.stored):
        if (after.epoch, after.seq) <= (before.epoch, before.seq):
            place = f"{(before.epoch, before.seq)} comes {(after.epoch, after.seq)}"
            yield f"I3: after {place} at sequence {after.sequence}", after.recv_ns
            return
    ids = [
        number for number in (_id(one.spec, stored.payload) for stored in one.stored) if number is not None
    ]
    for earlier, later in pairwise(ids):
        if later <= earlier:
            yield f"I3: after id {earlier} comes {later}", None
            return


def _difference(one: Evidence, missing: Sequence[Wired]) -> Iterator[Broken]:
    """The N-th running hash over the payloads must be the same at both ends; what is missing was not sent."""
    absent = Counter(_name(one.spec, wired.payload) for wired in missing)
    sent = blake2b(digest_size=16)
    got = blake2b(digest_size=16)
    expected = []
    for wired in one.wired:
        name = _name(one.spec, wired.payload)
        if absent[name] > 0:
            absent[name] -= 1
        else:
            expected.append(wired)
    if len(expected) != len(one.stored):
        yield f"I4: {len(expected)} payloads were to arrive and {len(one.stored)} did", None
    for number, (wired, stored) in enumerate(zip(expected, one.stored, strict=False), 1):
        sent.update(wired.payload)
        got.update(wired.payload if stored.from_rest else stored.payload)
        if sent.digest() != got.digest():
            yield f"I4: the running hash of event {number} differs", wired.at_ns
            return


def _missing(one: Evidence) -> list[Wired]:
    """W - C: by id, else by payload, with multiplicity for those that repeat."""
    held = Counter(_name(one.spec, stored.payload) for stored in one.stored)
    missing = []
    for wired in one.wired:
        name = _name(one.spec, wired.payload)
        if held[name] > 0:
            held[name] -= 1
        else:
            missing.append(wired)
    return missing


def _unannounced(one: Evidence, missing: Sequence[Wired]) -> Iterator[Broken]:
    announced = [loss for loss in one.losses if not loss.healed]
    repaired = {_name(one.spec, stored.payload) for stored in one.repaired}
    left = [wired for wired in missing if _name(one.spec, wired.payload) not in repaired]
    if not one.spec.id_key:
        silent = [wired for wired in left if not any(_covers(loss, wired) for loss in announced)]
        if silent:
            text = f"I5: {len(silent)} events of {len(left)} that are missing were not announced"
            yield text, silent[0].at_ns
        return
    made_ns = {_id(one.spec, wired.payload): wired.at_ns for wired in left}
    ids = set(made_ns)
    ledger = set().union(*(loss.ids for loss in announced)) - set().union(
        *(loss.ids for loss in one.losses if loss.healed)
    )
    if secret := ids - ledger:
        first = min(secret, key=_int)
        yield f"I5: {len(secret)} missing ids were not announced, the first is {first}", made_ns[first]
    contiguous = one.spec.kind.value in CONTIGUOUS
    if contiguous and (false := ledger - ids):
        text = f"I5: {len(false)} ids were announced as lost and are not, the first is"
        yield f"{text} {min(map(_int, false))}", None
    counted = sum(loss.count or 0 for loss in announced)
    if contiguous and counted != sum(len(loss.ids) for loss in announced):
        yield f"I5: the ledger counts {counted} events, its ids say otherwise", None


def _int(number: int | None) -> int:
    return -1 if number is None else number


def _covers(loss: Loss, wired: Wired) -> bool:
    return loss.from_ns - LEDGER_SLACK_NS <= wired.at_ns <= loss.to_ns + LEDGER_SLACK_NS


def _name(spec: StreamSpec, payload: bytes) -> int | bytes:
    number = _id(spec, payload)
    return payload if number is None else number


def _id(spec: StreamSpec, payload: bytes) -> int | None:
    return event_id(spec.kind, payload) if spec.id_key else None


def log_troubles(logs: Path) -> list[str]:
    """I8: the entries about what nobody expected, with the file that they stand in."""
    found = []
    for path in sorted(logs.glob("*.log")):
        entries = _ENTRY.split(path.read_text(encoding="utf-8", errors="replace"))
        troubles = (entry for entry in entries if TROUBLE.search(entry) and not MEANT.search(entry))
        found += [f"I8: {path.name}: {entry.strip()[-600:]}" for entry in troubles]
    return found


def journalled(directory: Path) -> set[tuple[int, int]]:
    """Epoch and seq of every event that the files of a journal hold; those that are acknowledged too."""
    found: set[tuple[int, int]] = set()
    if not directory.exists():
        return found
    named = (segment_named(path.name) for path in directory.iterdir())
    for segment, limit in current_segments(one for one in named if one is not None):
        data = (directory / segment.name).read_bytes()
        for item in scan(data, segment.epoch, segment.last_offset, limit):
            if isinstance(item, Found) and item.kind == RecordKind.EVENT:
                batch = head(data, item.start)
                found |= {(batch.epoch, batch.seq + number) for number in range(batch.records)}
    return found


class Reading(NamedTuple):
    """`rejected` frames are as the relay reports them."""

    events: dict[str, list[Stored]]
    repaired: dict[str, list[Stored]]
    losses: list[Loss]
    rejected: list[dict[str, Any]] = []  # noqa: RUF012 - a tuple's default, never changed


def read_stored(url: str, sources: Mapping[str, str]) -> Reading:
    """Everything that JetStream holds; `sources` maps the JetStream name to the subject of its events."""
    return asyncio.run(_read_stored(url, sources))


async def _read_stored(url: str, sources: Mapping[str, str]) -> Reading:
    client = await nats.connect(url, allow_reconnect=False)
    try:
        events: dict[str, list[Stored]] = {}
        repaired: dict[str, list[Stored]] = {}
        for name, subject in sources.items():
            for found in await _messages(client, name):
                if found.subject == subject:
                    key, stored = _event(found)
                    events.setdefault(key, []).append(stored)
        side = await _messages(client, "SLUICE_SIDE")
        for found in side:
            if found.subject.endswith(".repair"):
                key, stored = _event(found)
                repaired.setdefault(key, []).append(stored)
        losses = [_loss(found.data) for found in side if found.subject.startswith("sluice.loss.")]
        rejected = [orjson.loads(one.data) for one in side if one.subject.startswith("sluice.rejected.")]
        return Reading(events, repaired, losses, rejected)
    finally:
        await client.close()


async def _messages(client: Any, name: str) -> list[Any]:
    js = client.jetstream(timeout=READ_TIMEOUT_S)
    info = await js.stream_info(name)
    found: list[Any] = []
    if not info.state.messages:
        return found
    done = asyncio.Event()

    async def take(message: Any) -> None:
        found.append(message)
        if message.metadata.sequence.stream >= info.state.last_seq:
            done.set()

    config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    subscription = await js.subscribe("", stream=name, ordered_consumer=True, cb=take, config=config)
    async with asyncio.timeout(60.0):
        await done.wait()
    await subscription.unsubscribe()
    return found


def _event(message: Any) -> tuple[str, Stored]:
    headers, envelope = message.headers or {}, open_envelope(message.data)
    stamp: datetime = message.metadata.timestamp
    return envelope.key, Stored(
        message.metadata.sequence.stream,
        headers.get("Nats-Msg-Id", envelope.message_id),
        int(headers.get("Sluice-Epoch", 0)),
        int(headers.get("Sluice-Seq", 0)),
        int(headers.get("Sluice-Recv-Ns", 0)),
        int(stamp.timestamp() * 1e9),
        envelope.data,
        "Sluice-Healed" in headers,
    )


def _loss(data: bytes) -> Loss:
    fields = orjson.loads(data)
    return Loss(
        fields["stream"],
        fields["first_id"],
        fields["last_id"],
        fields["count"],
        fields["cause"],
        _ns(fields["from"]),
        _ns(fields["to"]),
        bool(fields["healed"]),
    )


def _ns(utc: str) -> int:
    return int(datetime.fromisoformat(utc).timestamp() * 1e9)


def quantile_ms(
    stored: Iterable[Stored], share: float, from_ns: int = 0, to_ns: int = 1 << 63
) -> float | None:
    """Of the time from the socket to the store, over events that were read in the given span."""
    latencies = sorted(one.latency_ms for one in stored if from_ns <= one.recv_ns < to_ns)
    return latencies[min(len(latencies) - 1, int(share * len(latencies)))] if latencies else None
