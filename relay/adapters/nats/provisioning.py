"""Creates the JetStream streams that a configuration needs, and updates existing ones to match it.

There is one for each Binance stream, and SLUICE_SIDE for the losses, rejected frames and repairs of all of
them. The server does not allow every setting to be changed; where it refuses, the error says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from relay.adapters.nats.connection import NatsConnection, connect_to_any
from relay.adapters.nats.jetstream_api import Requests, ask
from relay.config import JetStreamConfig, NatsConfig, StreamSettings
from relay.errors import BusError, RefusedError
from relay.model.choices import Delivery

SIDE_NAME = "SLUICE_SIDE"
SIDE_SUBJECTS = ("sluice.loss.>", "sluice.rejected.>")
# Older ones lost whole streams when the server's process was killed (jepsen.io/analyses/nats-2.12.1).
OLDEST_SERVER = (2, 10, 23)
# nats-server's error codes.
NO_STREAM, SUBJECTS_OVERLAP = 10059, 10065
NO_ROOM = frozenset({10023, 10028, 10047})
NO_REPLICAS = frozenset({10005, 10074})

Fields = dict[str, Any]


async def ensure_streams(nats: NatsConfig, streams: Sequence[StreamSettings]) -> tuple[str, ...]:
    """The names of the streams that were created or changed; none with core delivery.

    Raises BusError, in one sentence with a remedy, for the first stream that cannot be created or updated.
    """
    if nats.delivery is Delivery.CORE:
        return ()
    connection = await connect_to_any(nats, "sluice streams", lambda _: None)
    try:
        _refuse_old(connection)
        wanted = [*(_stream_fields(nats.stream, one) for one in streams), _side_fields(nats, streams)]
        return tuple([fields["name"] for fields in wanted if await _ensure(connection, fields)])
    finally:
        await connection.close()


def _refuse_old(connection: NatsConnection) -> None:
    if connection.version < OLDEST_SERVER:
        found, oldest = (".".join(map(str, version)) for version in (connection.version, OLDEST_SERVER))
        raise BusError(f"the NATS server {connection.server} is {found}; use {oldest} or later")


def _stream_fields(limits: JetStreamConfig, stream: StreamSettings) -> Fields:
    subjects = [stream.stored_subject, stream.spec.fence_subject]
    fields = _fields(limits, stream.spec.jetstream_name, subjects)
    if stream.stored_subject != stream.subject:
        fields["republish"] = {"src": stream.stored_subject, "dest": stream.subject}
    return fields


def _side_fields(nats: NatsConfig, streams: Sequence[StreamSettings]) -> Fields:
    repairs = {one.spec.repair_subject(nats.subject) for one in streams if one.spec.healable}
    return _fields(nats.stream, SIDE_NAME, [*SIDE_SUBJECTS, *sorted(repairs)])


def _fields(limits: JetStreamConfig, name: str, subjects: list[str]) -> Fields:
    return {
        "name": name,
        "subjects": subjects,
        "storage": "file",
        "retention": "limits",
        "discard": "old",
        "max_bytes": limits.max_bytes,
        "max_age": int(limits.max_age_s * 1e9),
        "duplicate_window": int(limits.duplicate_window_s * 1e9),
        "num_replicas": limits.replicas,
        "allow_direct": True,
        # An operator may have set these; each would lose events, or leave the relay without an answer.
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "no_ack": False,
    }


async def _ensure(connection: Requests, wanted: Fields) -> bool:
    """True if something was created or changed."""
    present = await _present(connection, wanted["name"])
    if present is None:
        await _apply(connection, "CREATE", wanted)
        return True
    if wanted["name"] == SIDE_NAME:
        # Other relays may store their side records here as well.
        others = set(present.get("subjects", ())) - set(wanted["subjects"])
        wanted = wanted | {"subjects": [*wanted["subjects"], *sorted(others)]}
    if _agree(present, wanted):
        return False
    kept = {name: value for name, value in present.items() if name != "republish"}
    await _apply(connection, "UPDATE", kept | wanted)
    return True


async def _present(connection: Requests, name: str) -> Fields | None:
    try:
        config: Fields = (await ask(connection, f"STREAM.INFO.{name}"))["config"]
    except RefusedError as error:
        if error.code == NO_STREAM:
            return None
        raise
    return config


def _agree(present: Fields, wanted: Fields) -> bool:
    # The server leaves out fields that are false.
    same = all(present.get(name, False) == value for name, value in wanted.items() if name != "subjects")
    subjects = set(present.get("subjects", ())) == set(wanted["subjects"])
    return same and subjects and _republish(present) == _republish(wanted)


def _republish(fields: Fields) -> tuple[str, str] | None:
    found = fields.get("republish")
    return (found.get("src", ""), found.get("dest", "")) if found else None


async def _apply(connection: Requests, verb: str, fields: Fields) -> None:
    name = fields["name"]
    try:
        await ask(connection, f"STREAM.{verb}.{name}", orjson.dumps(fields))
    except RefusedError as error:
        if error.code == SUBJECTS_OVERLAP:
            raise BusError(await _overlap(connection, fields)) from error
        raise BusError(_explained(verb, fields, error)) from error


def _explained(verb: str, fields: Fields, error: RefusedError) -> str:
    name, size = fields["name"], fields["max_bytes"]
    if error.code in NO_ROOM:
        return (
            f"NATS has no room for {name} of {size} bytes ({error.text}); lower nats.stream.max_bytes"
            " or raise the server's max_file_store"
        )
    if error.code in NO_REPLICAS:
        count = fields["num_replicas"]
        return f"NATS cannot keep {count} copies of {name} ({error.text}); lower nats.stream.replicas"
    if verb == "UPDATE":
        return (
            f"NATS refuses to change its stream {name} to the configuration ({error.text});"
            f" copy what you need of it and delete it: nats stream rm {name}"
        )
    return f"NATS refuses to create {name} ({error.text}); see the section nats.stream"


async def _overlap(connection: Requests, fields: Fields) -> str:
    """The error text, which names the stream that already stores one of these subjects."""
    for subject in fields["subjects"]:
        found = await ask(connection, "STREAM.NAMES", orjson.dumps({"subject": subject}))
        others = [name for name in found.get("streams") or () if name != fields["name"]]
        if others:
            return (
                f"the JetStream stream {others[0]} stores {subject} already, which {fields['name']} needs;"
                " choose another nats.subject, or take the subject out of that stream"
            )
    return f"another JetStream stream stores the subjects of {fields['name']}; choose another nats.subject"
