"""Baseline: a one-process forwarder, written as well as is reasonable.

One socket per stream, one uvloop, each frame wrapped from bytes without parsing it and published with nats-py
at once. No journal, no acknowledgement, and only TCP's own bound on what waits.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Sequence

import nats
import uvloop
from nats.aio.client import Client
from websockets.asyncio.client import connect

from bench.child import serve_commands
from relay.binance.streams import Venue, parse_stream
from relay.publish.envelope import Envelope

SUBJECT = "binance.{venue}.{symbol}.{channel}"


async def forward(exchange_url: str, stream: str, connection: Client) -> None:
    spec = parse_stream(Venue.USDM, stream)
    subject, envelope, publish = spec.subject(SUBJECT), Envelope(stream), connection.publish
    number = 0
    async with connect(exchange_url + spec.path, compression=None, max_queue=1024) as socket:
        while True:
            payload = await socket.recv(decode=False)
            number += 1
            await publish(subject, envelope.wrap(payload, time.time_ns(), f"{stream}:{number}".encode()))


async def main(exchange_url: str, nats_url: str, streams: Sequence[str]) -> None:
    connection = await nats.connect(nats_url)
    forwarding = [asyncio.ensure_future(forward(exchange_url, stream, connection)) for stream in streams]
    serving = asyncio.ensure_future(serve_commands({"ready": True}, {}))
    # A failure ends the process, so that the benchmark reports it instead of a row of losses.
    done, _ = await asyncio.wait((serving, *forwarding), return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    for task in forwarding:
        task.cancel()


def arguments(prog: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--nats", required=True)
    parser.add_argument("streams", nargs="+")
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments("bench.forwarder")
    gc.freeze()
    uvloop.run(main(given.exchange, given.nats, given.streams))
