"""What must hold of a stream at the end of a run, by what the exchange sent, the disk holds and NATS stored.

Everything accepted is stored exactly once, in order, byte for byte; and of the numbers between the first and
the last that are stored, the loss ledger names those that are missing and none that was accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import orjson

from relay.delivery.window import SendWindow
from relay.model.record_batch import RecordKind, decode
from tests.simulation.disk import Disk
from tests.simulation.exchange_model import Market
from tests.simulation.nats_model import Message, NatsModel
from tests.simulation.relay_model import StreamActors
from tests.simulation.world import START_NS

SIDE = "SLUICE_SIDE"
# The ledger's times are whole milliseconds.
ROUNDING_NS = 1_000_000


def imbalance(window: SendWindow) -> str:
    """Empty while the counts of StreamStats balance."""
    counts = window.counts
    held = window.queued + window.in_flight + counts.spilled
    ended = counts.acknowledged + counts.conflated + counts.dropped + counts.rejected
    return "" if counts.received == held + ended else f"counts do not balance: {counts}, {window!r}"


def missing(stream: StreamActors, market: Market, nats: NatsModel) -> int:
    """How many of the events behind the first stored one are not stored."""
    stored = set(_stored(stream, market, nats)[0])
    return market.number - min(stored, default=market.number + 1) + 1 - len(stored)


def violations(stream: StreamActors, market: Market, nats: NatsModel, disk: Disk) -> list[str]:
    """Empty when all of it holds."""
    spec = stream.settings.spec
    numbers_of = {payload: number for number, _, payload in market.sent}
    stored, events = _stored(stream, market, nats)
    losses = [
        orjson.loads(each.body) for each in nats.streams[SIDE].messages if each.subject == spec.loss_subject
    ]
    accepted = _accepted(stream, numbers_of, disk)
    problems = [*_epochs(events)]
    if not spec.id_key and not stream.settings.critical:
        stored, events = _without_strays(stream, stored, events, numbers_of, disk)
    unannounced = _unannounced(stream, stored, events)
    problems += _order(stored)
    if accepted - set(stored):
        problems.append(f"{sorted(accepted - set(stored))} were accepted and are not stored")
    if spec.id_key:
        problems += _ids_missing(stored, losses, accepted, unannounced)
    else:
        problems += _times_missing(stored, events, losses, unannounced)
    return [f"{spec.name}: {problem}" for problem in problems]


def _stored(stream: StreamActors, market: Market, nats: NatsModel) -> tuple[list[int], list[Message]]:
    """The numbers of the events on the stream's subject, 0 for what the exchange never sent, and they."""
    numbers_of = {payload: number for number, _, payload in market.sent}
    messages = nats.streams[stream.settings.spec.jetstream_name].messages
    events = [each for each in messages if each.subject == stream.settings.stored_subject]
    return [numbers_of.get(_payload(each.body), 0) for each in events], events


def _payload(body: bytes) -> bytes:
    return body[body.index(b',"data":') + 8 : body.rindex(b',"timestamp":"')]


def _without_strays(
    stream: StreamActors,
    stored: list[int],
    events: list[Message],
    numbers_of: dict[bytes, int],
    disk: Disk,
) -> tuple[list[int], list[Message]]:
    """Without ids nobody can know that two incarnations which both live have read the same event: what an
    incarnation stored after it had lost its journal, and before it was fenced, stands beside the accepted."""
    epochs = {name: epoch for name, _, epoch in stream.owners}
    rightful = {
        (epochs[process], numbers_of[payload])
        for process, data in _appended(stream, disk)
        for payload in _events(data)
    }
    kept = [
        at
        for at, each in enumerate(events)
        if (int(each.fields["Sluice-Epoch"]), stored[at]) in rightful or len(epochs) == 1
    ]
    return [stored[at] for at in kept], [events[at] for at in kept]


def _epochs(events: list[Message]) -> Iterator[str]:
    """Nothing of an incarnation is stored behind anything of a later one."""
    places = [(int(each.fields["Sluice-Epoch"]), int(each.fields["Sluice-Seq"])) for each in events]
    if places != sorted(set(places)):
        yield "epochs and counts do not rise"


def _order(stored: list[int]) -> Iterator[str]:
    if 0 in stored:
        yield f"message {stored.index(0) + 1} holds what the exchange never sent"
    for earlier, later in pairwise(stored):
        if later <= earlier:
            yield f"{later} is stored after {earlier}"


def _accepted(stream: StreamActors, numbers_of: dict[bytes, int], disk: Disk) -> set[int]:
    appended = _appended(stream, disk)
    return {numbers_of[payload] for _, data in appended for payload in _events(data)}


def _appended(stream: StreamActors, disk: Disk) -> Iterator[tuple[str, bytes]]:
    """Once another incarnation has the journal, what an earlier one appends counts for nothing."""
    ends = [began for _, began, _ in stream.owners[1:]] + [None]
    for (process, _, _), end in zip(stream.owners, ends, strict=True):
        for turn, data in disk.written[process]:
            if end is None or turn < end:
                yield process, data


def _events(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        batch, at = decode(data, at, check=True)
        if batch.kind == RecordKind.EVENT:
            yield from batch.payloads


def _unannounced(stream: StreamActors, stored: list[int], events: list[Message]) -> set[int]:
    """The first stored numbers of incarnations that have ended: what is missing before one of them only that
    incarnation could have announced, once it had read from NATS how far its predecessor came, and it may have
    ended before."""
    first: dict[int, int] = {}
    for number, event in zip(stored, events, strict=True):
        first.setdefault(int(event.fields["Sluice-Epoch"]), number)
    return {number for epoch, number in first.items() if epoch != stream.owners[-1][2]}


def _ids_missing(
    stored: list[int], losses: list[dict[str, Any]], accepted: set[int], unannounced: set[int]
) -> Iterator[str]:
    """What was stored although nobody accepted it may be announced: who did so could not know."""
    announced = {
        number
        for loss in losses
        if loss["first_id"] is not None
        for number in range(loss["first_id"], loss["last_id"] + 1)
    }
    gaps = [range(one + 1, other) for one, other in pairwise(stored) if other not in unannounced]
    missing = {number for gap in gaps for number in gap}
    if missing - announced:
        yield f"{sorted(missing - announced)} are missing and not on the ledger"
    if announced & accepted:
        yield f"{sorted(announced & accepted)} are on the ledger and were accepted"


def _times_missing(
    stored: list[int], events: list[Message], losses: list[dict[str, Any]], unannounced: set[int]
) -> Iterator[str]:
    """Without ids the ledger announces spells; one of them must lie where numbers are missing."""
    # A predecessor that was taken for dead may have gone on for a while: then a spell ends before it begins.
    spells = [sorted((_ns(loss["from"]), _ns(loss["to"]))) for loss in losses]
    for at in range(1, len(stored)):
        if stored[at] > stored[at - 1] + 1 and stored[at] not in unannounced:
            since, until = (int(events[i].fields["Sluice-Recv-Ns"]) for i in (at - 1, at))
            if not any(start <= until + ROUNDING_NS and end >= since - ROUNDING_NS for start, end in spells):
                yield f"nothing on the ledger between {stored[at - 1]} and {stored[at]}"


def _ns(text: str) -> int:
    """Of a time of this run, which begins on a whole day."""
    hours, minutes, seconds = text.rstrip("Z").partition("T")[2].split(":")
    return START_NS + round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * 1e9)
