"""How the latency of a calm event divides, from the exchange's stamp to the consumer's read."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from bench.consumer import SUBJECT
from bench.nats_tap import subscribe
from bench.sluice import RunningSluice
from bench.tally import quantile
from bench.testbed import Testbed

_MADE = re.compile(rb'"E":(\d+)')
_READ = re.compile(rb"Sluice-Recv-Ns: ?(\d+)")
# Figures of each stream in `driver.py status --json`, over its last ten seconds.
_OWN = {"read to NATS write": "relay_latency", "read to acknowledged": "latency"}


def hops(testbed: Testbed, running: RunningSluice, rates: dict[str, float]) -> Iterator[dict[str, Any]]:
    """Quantiles of each part in microseconds; of the relay's own figures, the median and the worst stream."""
    testbed.offer(rates)
    # The relay's own figures cover its last ten seconds.
    time.sleep(12.0)
    read_us, consumed_us, whole_us = asyncio.run(_collect(testbed.nats_url, 10.0))
    streams = running.status()["streams"]
    testbed.offer({})
    yield _finding("exchange's stamp to socket read", read_us)
    for name, field in _OWN.items():
        p50, p99 = ([1000 * one[f"{field}_{q}_ms"] for one in streams] for q in ("p50", "p99"))
        yield {"hop": name, "p50_us": round(median(p50)), "p99_us": round(max(p99))}
    yield _finding("socket read to consumer's read", consumed_us)
    yield _finding("exchange's stamp to consumer's read", whole_us)


def _finding(hop: str, late_us: Sequence[int]) -> dict[str, Any]:
    ordered = sorted(late_us)
    return {"hop": hop} | {f"p{100 * q:g}_us": round(quantile(ordered, q)) for q in (0.5, 0.99)}


async def _collect(nats_url: str, seconds: float) -> tuple[list[int], list[int], list[int]]:
    """Stamp to read, read to consumed, and both together."""
    read_us: list[int] = []
    consumed_us: list[int] = []
    whole_us: list[int] = []

    def take(buffer: bytes, start: int, end: int, now_us: int) -> None:
        made, head = _MADE.search(buffer, start, end), buffer.rfind(b"NATS/1.0", 0, start)
        read = _READ.search(buffer, head, start)
        if made and read:
            made_us, at_us = int(made[1]), int(read[1]) // 1000
            read_us.append(at_us - made_us)
            consumed_us.append(now_us - at_us)
            whole_us.append(now_us - made_us)

    address = urlsplit(nats_url)
    await subscribe(address.hostname or "127.0.0.1", address.port or 4222, SUBJECT, take)
    await asyncio.sleep(seconds)
    return read_us, consumed_us, whole_us
