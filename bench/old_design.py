"""Baseline: the old client's design in miniature.

One process, asyncio's own loop, one raw socket that subscribes to every stream, one shared queue of 5,000
that drops the newest, five coroutines that each wait for the queue with a timeout of a second, a label
guessed from the payload, an envelope with a uuid4 and a timestamp from after the queue, one flat subject,
nats-py without any acknowledgement. As in the old client, the payload is parsed with json and written again
with orjson.

Left out, each in the old design's favour: its pydantic models, a log line for every hundredth message and for
every drop, circuit breakers, trace contexts, health server and heartbeats.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import nats
import orjson
from nats.aio.client import Client
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from bench.child import serve_commands
from bench.forwarder import arguments

SUBJECT = "binance.websocket.data"
MAX_QUEUE_SIZE = 5000
PROCESSORS = 5
QUEUE_WAIT_S = 1.0
PING_INTERVAL_S, PING_TIMEOUT_S, RECONNECT_DELAY_S = 30, 10, 5
_CHANNELS = {
    "trade": "trade",
    "24hrTicker": "ticker",
    "depthUpdate": "depth20@100ms",
    "markPriceUpdate": "markPrice@1s",
}


class OldDesign:
    def __init__(self, connection: Client, streams: Sequence[str]) -> None:
        self.dropped = 0
        self.unlabelled = 0
        self._connection = connection
        self._streams = streams
        self._queue: asyncio.Queue[Any] = asyncio.Queue(MAX_QUEUE_SIZE)

    async def listen(self, url: str) -> None:
        while True:
            async with connect(url, ping_interval=PING_INTERVAL_S, ping_timeout=PING_TIMEOUT_S) as socket:
                await socket.send(json.dumps({"method": "SUBSCRIBE", "params": self._streams, "id": 1}))
                try:
                    async for message in socket:
                        self._put(json.loads(message))
                except ConnectionClosed:
                    await asyncio.sleep(RECONNECT_DELAY_S)

    def _put(self, data: Any) -> None:
        try:
            self._queue.put_nowait(data)
        except asyncio.QueueFull:
            self.dropped += 1

    async def process(self) -> None:
        while True:
            try:
                data = await asyncio.wait_for(self._queue.get(), QUEUE_WAIT_S)
            except TimeoutError:
                continue
            await self._publish(data)
            self._queue.task_done()

    async def _publish(self, data: dict[str, Any]) -> None:
        label = self._label(data)
        if label is None:
            self.unlabelled += 1
            return
        message = {
            "stream": label,
            "data": data,
            "timestamp": datetime.now(UTC).replace(tzinfo=None).isoformat() + "Z",
            "message_id": str(uuid.uuid4()),
            "source": "binance-websocket",
            "version": "1.0",
        }
        await self._connection.publish(SUBJECT, orjson.dumps(message))

    def _label(self, data: dict[str, Any]) -> str | None:
        """An order book without a symbol gets the first stream's label; an answer to SUBSCRIBE has none."""
        symbol, event = data.get("s", "").lower(), data.get("e", "")
        if "lastUpdateId" in data:
            return f"{symbol or self._streams[0].partition('@')[0]}@depth20@100ms"
        if not symbol or not event:
            return None
        return f"{symbol}@{_CHANNELS.get(event, event)}"

    async def report(self) -> dict[str, int]:
        return {"dropped": self.dropped, "queued": self._queue.qsize(), "unlabelled": self.unlabelled}


async def main(exchange_url: str, nats_url: str, streams: Sequence[str]) -> None:
    connection = await nats.connect(nats_url)
    client = OldDesign(connection, streams)
    working = [asyncio.ensure_future(client.process()) for _ in range(PROCESSORS)]
    working.append(asyncio.ensure_future(client.listen(f"{exchange_url}/public/ws")))
    serving = asyncio.ensure_future(serve_commands({"ready": True}, {"report": client.report}))
    done, _ = await asyncio.wait((serving, *working), return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    for task in working:
        task.cancel()


if __name__ == "__main__":
    given = arguments("bench.old_design")
    asyncio.run(main(given.exchange, given.nats, given.streams))
