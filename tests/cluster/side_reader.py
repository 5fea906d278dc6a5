"""Reads the loss ledger back from JetStream."""

from __future__ import annotations

import asyncio
from typing import Any

import nats
import orjson


def read_losses(url: str) -> list[dict[str, Any]]:
    """Every entry that is stored on `sluice.loss.>`, in order."""

    async def read() -> list[dict[str, Any]]:
        client = await nats.connect(url, allow_reconnect=False)
        try:
            stream = await client.jetstream().stream_info("SLUICE_SIDE")
            if not stream.state.messages:
                return []
            manager = client.jsm()
            entries = []
            for sequence in range(stream.state.first_seq, stream.state.last_seq + 1):
                message = await manager.get_msg("SLUICE_SIDE", seq=sequence)
                if message.subject.startswith("sluice.loss."):
                    entries.append(orjson.loads(message.data))
            return entries
        finally:
            await client.close()

    return asyncio.run(read())
