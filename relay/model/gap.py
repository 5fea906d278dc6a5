"""Ids that are missing from a stream, and what became of them; pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, NamedTuple


class LossCause(StrEnum):
    """Why ids are missing; the values stand on the loss ledger."""

    DISCONNECT = "disconnect"
    """There was no connection to the exchange in between."""
    UPSTREAM = "upstream"
    """The exchange left the ids out on a connection that stayed open."""
    JOURNAL = "journal"
    """The events were accepted, and damage to the journal took them before NATS had them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Ids that were not received. `sample` is a payload of the stream, which shows the form of the others;
    empty where none is known, and then REST cannot be asked."""

    first_id: int
    last_id: int
    cause: LossCause
    from_ns: int
    to_ns: int
    sample: bytes


class FillOutcome(Enum):
    FOUND = "found"
    ABSENT = "absent"
    """REST lists the events on both sides and none with these ids."""
    UNREACHED = "unreached"
    """REST does not reach back to them, or needs an API key for them."""


class FillRange(NamedTuple):
    """Ids with the same outcome; FOUND ones have a payload each, in the order of the ids."""

    first_id: int
    last_id: int
    outcome: FillOutcome
    payloads: Sequence[bytes] = ()


class GapRule(NamedTuple):
    """Finds whether ids are missing between two events of a stream that follow each other.

    `missing_between` takes the last id, this one, and this one's parsed payload, and counts what is missing;
    where ids are linked but not `contiguous` it can only say that something is.
    """

    missing_between: Callable[[int, int, Any], int]
    contiguous: bool


def coalesce(ranges: Sequence[FillRange]) -> list[FillRange]:
    """Joins neighbouring ranges with the same outcome."""
    runs: list[list[FillRange]] = []
    for each in ranges:
        if runs and runs[-1][-1].outcome is each.outcome and runs[-1][-1].last_id + 1 == each.first_id:
            runs[-1].append(each)
        else:
            runs.append([each])
    return [
        FillRange(
            run[0].first_id, run[-1].last_id, run[0].outcome, [each for one in run for each in one.payloads]
        )
        for run in runs
    ]
