"""Sends the heartbeat to NATS."""

from __future__ import annotations

from relay.adapters.nats.connection import connect_to_any
from relay.config import NatsConfig
from relay.errors import BusError

SUBJECT = "sluice.heartbeat"


async def publish(nats: NatsConfig, payload: bytes) -> None:
    """Raises BusError unless the server has read and accepted it."""
    complaints: list[str] = []
    connection = await connect_to_any(nats, "sluice heartbeat", complaints.append)
    try:
        if len(payload) > connection.max_payload:
            raise BusError(f"the heartbeat has {len(payload)} bytes; raise max_payload of the NATS server")
        connection.write(b"PUB %b %d\r\n%b\r\n" % (SUBJECT.encode(), len(payload), payload))
        await connection.flush()
    finally:
        await connection.close()
    if complaints:
        raise BusError(f"NATS does not accept the heartbeat: {complaints[0]}")
