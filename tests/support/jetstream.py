"""JetStream right after the start of its server."""

from __future__ import annotations

import asyncio

from relay.adapters.nats.provisioning import ensure_streams
from relay.config import Config
from relay.errors import BusError

DEADLINE_S = 10.0


async def streams_ensured(config: Config) -> tuple[str, ...]:
    """As `ensure_streams` does; JetStream is ready a moment after the server's port is."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await ensure_streams(config.nats, config.streams)
            except BusError:
                await asyncio.sleep(0.05)
