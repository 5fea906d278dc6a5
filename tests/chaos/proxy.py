"""A TCP proxy that misbehaves on demand, with the eight names of Toxiproxy.

Each toxic works on one direction, UP (from the client) or DOWN (from the server), of every connection, new or
old, until it is lifted. `down` closes the whole proxy. What a toxic really did is counted in `touched`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Collection, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from types import TracebackType
from typing import Any, Self

CHUNK_BYTES = 64 * 1024


class Way(StrEnum):
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Everything comes `delay_s` later, give or take `jitter_s`, in order."""

    delay_s: float
    jitter_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowClose:
    """The end of a connection is passed on `delay_s` late."""

    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Bytes vanish; after `after_s` the connection is closed, never if that is 0.

    Lifting it cuts the connections that lost bytes: the rest of their stream would make no sense.
    """

    after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetPeer:
    """Both sides get a reset, `after_s` after the next byte."""

    after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slicer:
    """Pieces of `bytes`, give or take `variation`, with `delay_s` between them."""

    bytes: int
    variation: int = 0
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitData:
    """The connection is closed once `bytes` have passed."""

    bytes: int


Toxic = Latency | Bandwidth | SlowClose | Timeout | ResetPeer | Slicer | LimitData


class LoopThread:
    """An event loop beside the test's own thread."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], within_s: float = 30.0) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(within_s)

    def close(self) -> None:
        self.run(_cancel_others())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


async def stop_listening(server: asyncio.Server) -> None:
    """A connection that was taken just before a server closes would never be closed itself (gh-109564)."""
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener.fileno())
    await asyncio.sleep(0)
    server.close()


async def _cancel_others() -> None:
    # A task that is cancelled before it began cleans nothing up: those of connections just taken begin now.
    for _ in range(3):
        await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    # An aborted transport lets go of its socket in the next turns of the loop.
    for _ in range(3):
        await asyncio.sleep(0)


@dataclass(eq=False)
class _Pair:
    """One client's connection and the one made for it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    maimed: bool = False

    @property
    def client_port(self) -> int:
        return int(self.client.get_extra_info("peername")[1])

    def cut(self, *, reset: bool = False) -> None:
        for writer in (self.client, self.server):
            if reset:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class FaultProxy:
    """Listens from entering to leaving and passes connections on to `target`; call it from any thread."""

    def __init__(self, target: tuple[str, int], *, seed: int = 1, host: str = "127.0.0.1") -> None:
        self.target = target
        self.host = host
        self.port = 0
        self.accepted_at: list[float] = []
        self.touched: Counter[str] = Counter()
        self._random = Random(seed)
        self._toxics: dict[Way, dict[type[Toxic], Toxic]] = {Way.UP: {}, Way.DOWN: {}}
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thread = LoopThread("fault proxy")
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        self._thread.close()

    @property
    def connections(self) -> int:
        return len(self._pairs)

    @property
    def url(self) -> str:
        """For WebSockets."""
        return f"ws://{self.host}:{self.port}"

    def down(self) -> None:
        """Refuse connections and end those that there are."""
        self._thread.run(self._down())

    def up(self) -> None:
        self._thread.run(self._up())

    def add(self, way: Way, toxic: Toxic) -> None:
        """At most one of each kind in a direction; a second one replaces the first."""
        self._thread.run(self._set(way, type(toxic), toxic))

    def lift(self, way: Way, kind: type[Toxic]) -> None:
        self._thread.run(self._set(way, kind, None))

    def reset(self, ports: Collection[int] | None = None) -> int:
        """Reset the present connections, or those from the given ports; returns how many."""
        return int(self._thread.run(self._reset(ports)))

    def finish(self) -> int:
        """End TCP of the present connections in good order, without a word; returns how many."""
        return int(self._thread.run(self._finish()))

    def swallow(self, ports: Collection[int] | None = None) -> int:
        """Present connections, or those from the given ports, stay and carry nothing any more, as where a
        router forgot them; new ones work. Returns how many."""
        return int(self._thread.run(self._swallow(ports)))

    async def _up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._attend, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _down(self) -> None:
        if self._server is not None:
            await stop_listening(self._server)
            self._server = None
        self.touched["down"] += len(self._pairs)
        await self._end(tuple(self._pairs))

    def _from(self, ports: Collection[int] | None) -> tuple[_Pair, ...]:
        return tuple(pair for pair in self._pairs if ports is None or pair.client_port in ports)

    async def _reset(self, ports: Collection[int] | None) -> int:
        pairs = self._from(ports)
        self.touched["ResetPeer"] += len(pairs)
        for pair in pairs:
            pair.cut(reset=True)
        await self._end(pairs)
        return len(pairs)

    async def _finish(self) -> int:
        pairs = tuple(self._pairs)
        self.touched["finished"] += len(pairs)
        await self._end(pairs)
        return len(pairs)

    async def _swallow(self, ports: Collection[int] | None) -> int:
        pairs = self._from(ports)
        for pair in pairs:
            pair.maimed = True
        return len(pairs)

    async def _end(self, pairs: tuple[_Pair, ...]) -> None:
        for pair in pairs:
            pair.cut()
            for task in pair.tasks:
                task.cancel()
        await asyncio.gather(*(task for pair in pairs for task in pair.tasks), return_exceptions=True)

    async def _set(self, way: Way, kind: type[Toxic], toxic: Toxic | None) -> None:
        if toxic is not None:
            self._toxics[way][kind] = toxic
            return
        self._toxics[way].pop(kind, None)
        if kind is Timeout:
            await self._end(tuple(pair for pair in self._pairs if pair.maimed))

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted_at.append(time.monotonic())
        try:
            there, back = await asyncio.open_connection(*self.target)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        pair = _Pair(writer, back)
        self._pairs.add(pair)
        pair.tasks = [
            asyncio.create_task(self._pump(pair, reader, back, Way.UP)),
            asyncio.create_task(self._pump(pair, there, writer, Way.DOWN)),
        ]
        try:
            await asyncio.wait(pair.tasks)
        finally:
            pair.cut()
            self._pairs.discard(pair)

    async def _pump(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        sender = asyncio.create_task(self._send(pair, queue, writer, way))
        try:
            while data := await reader.read(CHUNK_BYTES):
                await queue.put((loop.time() + self._delay_s(way), data))
            await queue.put((0.0, b""))
            await sender
        except OSError:
            pair.cut()
        finally:
            sender.cancel()

    def _delay_s(self, way: Way) -> float:
        latency = self._toxics[way].get(Latency)
        if not isinstance(latency, Latency):
            return 0.0
        self.touched["Latency"] += 1
        return max(0.0, latency.delay_s + self._random.uniform(-latency.jitter_s, latency.jitter_s))

    async def _send(
        self, pair: _Pair, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, way: Way
    ) -> None:
        loop = asyncio.get_running_loop()
        passed = 0
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                await self._close(writer, way)
                return
            for piece in self._sliced(data, way):
                passed += len(piece)
                await self._pass_on(pair, piece, passed, writer, way)

    async def _close(self, writer: asyncio.StreamWriter, way: Way) -> None:
        slow = self._toxics[way].get(SlowClose)
        if isinstance(slow, SlowClose):
            self.touched["SlowClose"] += 1
            await asyncio.sleep(slow.delay_s)
        if writer.can_write_eof():
            writer.write_eof()

    def _sliced(self, data: bytes, way: Way) -> list[bytes]:
        slicer = self._toxics[way].get(Slicer)
        if not isinstance(slicer, Slicer):
            return [data]
        pieces, at = [], 0
        while at < len(data):
            size = max(1, slicer.bytes + self._random.randint(-slicer.variation, slicer.variation))
            pieces.append(data[at : at + size])
            at += size
        self.touched["Slicer"] += len(pieces)
        return pieces

    async def _pass_on(
        self, pair: _Pair, data: bytes, passed: int, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        for toxic in tuple(self._toxics[way].values()):
            match toxic:
                case Timeout(after_s=after_s):
                    self.touched["Timeout"] += len(data)
                    if after_s and not pair.maimed:
                        asyncio.get_running_loop().call_later(after_s, pair.cut)
                    pair.maimed = True
                    return
                case ResetPeer(after_s=after_s):
                    self.touched["ResetPeer"] += 1
                    asyncio.get_running_loop().call_later(after_s, lambda: pair.cut(reset=True))
                case Bandwidth(bytes_per_s=bytes_per_s):
                    self.touched["Bandwidth"] += len(data)
                    await asyncio.sleep(len(data) / bytes_per_s)
                case Slicer(delay_s=delay_s):
                    await asyncio.sleep(delay_s)
                case LimitData(bytes=most) if passed >= most:
                    self.touched["LimitData"] += 1
                    writer.write(data[: max(0, len(data) - (passed - most))])
                    await writer.drain()
                    pair.cut()
                    return
        if pair.maimed:
            self.touched["swallowed"] += len(data)
            return
        writer.write(data)
        await writer.drain()
