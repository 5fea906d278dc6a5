"""One entry of the loss ledger, which is published on `sluice.loss.…`: as a value and as JSON; pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from relay.errors import UnreadableEntryError
from relay.model.gap import LossCause
from relay.primitives.text import utc


@dataclass(frozen=True, slots=True, kw_only=True)
class LossEntry:
    """What the exchange sent, or may have sent, between `from_ns` and `to_ns`, and Sluice did not get.

    Ids are None where the stream has none; `count` is None where ids do not count events. With `healed`, REST
    has answered for these ids: `count` events with them are on `subject`, and the other ids do not exist.
    `suspect` says that nothing confirms these events: ids of futures trades are contiguous in every
    recording, but no document promises it. `reason` says why they are not healed. `cause` is a plain str only
    in an entry that another version wrote, with a cause that is unknown here.
    """

    stream: str
    first_id: int | None
    last_id: int | None
    count: int | None
    cause: LossCause | str
    from_ns: int
    to_ns: int
    healed: bool = False
    subject: str | None = None
    suspect: bool = False
    reason: str = ""

    def encode(self) -> bytes:
        fields = {
            "stream": self.stream,
            "first_id": self.first_id,
            "last_id": self.last_id,
            "count": self.count,
            "cause": self.cause,
            "from": utc(self.from_ns),
            "to": utc(self.to_ns),
            "healed": self.healed,
            "subject": self.subject,
            "suspect": self.suspect,
            "reason": self.reason,
        }
        return orjson.dumps(fields)


def read_entry(payload: bytes) -> LossEntry:
    """Raises UnreadableEntryError. Fields that earlier versions did not write have their defaults."""
    try:
        fields: dict[str, Any] = orjson.loads(payload)
        return LossEntry(
            stream=str(fields["stream"]),
            first_id=_whole(fields["first_id"]),
            last_id=_whole(fields["last_id"]),
            count=_whole(fields["count"]),
            cause=_cause(str(fields["cause"])),
            from_ns=_ns(fields["from"]),
            to_ns=_ns(fields["to"]),
            healed=fields["healed"] is True,
            subject=fields.get("subject"),
            suspect=fields.get("suspect") is True,
            reason=str(fields.get("reason", "")),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise UnreadableEntryError(f"no entry of the loss ledger: {payload[:120]!r}") from error


def _ns(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000) * 1_000_000


def _cause(word: str) -> LossCause | str:
    return next((cause for cause in LossCause if cause == word), word)


def _whole(value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise TypeError(value)
    return value
