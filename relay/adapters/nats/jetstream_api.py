"""Requests to JetStream's API and their answers."""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from relay.errors import BusError, RefusedError


class Requests(Protocol):
    """The part of a NATS connection that requests need; answers are returned as bytes."""

    async def request(
        self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None
    ) -> bytes: ...


async def ask(connection: Requests, call: str, query: bytes = b"") -> dict[str, Any]:
    """The answer to an API call such as `STREAM.INFO.<name>`. Raises RefusedError for an error in the answer,
    and BusError for no answer or an unreadable one."""
    answer = await connection.request(f"$JS.API.{call}", query)
    try:
        fields: dict[str, Any] = orjson.loads(answer)
        error = fields.get("error")
    except (orjson.JSONDecodeError, AttributeError) as failure:
        raise BusError(f"the answer to {call} cannot be read") from failure
    if error is not None:
        code = int(error.get("err_code", error.get("code", 0)))
        raise RefusedError(call, code, str(error.get("description", "refused")))
    return fields
