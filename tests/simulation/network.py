"""A network of byte streams: latency, cuts, partitions and slow links, and nothing that TCP does not do.

Bytes of one direction arrive in order or not at all. A partition holds them back, as retransmission does; a
dead process's sockets end at their peers; a reset may destroy what was on its way.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.world import Process, World

LATENCY_S = (0.0001, 0.002)
KERNEL_BYTES = 64 * 1024
SPLIT_ONE_READ_IN = 8


class Network:
    """One for all processes; addresses are `host:port`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gone = False
        self._listeners: dict[str, tuple[Process, Callable[[], asyncio.BaseProtocol]]] = {}
        self._ends: set[End] = set()
        # Pairs of process names, in the direction of the bytes.
        self._held: dict[tuple[str, str], int] = {}
        self._slow: dict[tuple[str, str], float] = {}
        self._port = 20_000

    def listen(self, process: Process, factory: Any, host: str, port: int) -> Listener:
        if not port:
            self._port += 1
            port = self._port
        address = f"{host}:{port}"
        self._listeners[address] = (process, factory)
        process.on_end.append(lambda: self.unlisten(address))
        return Listener(self, address)

    def unlisten(self, address: str) -> None:
        self._listeners.pop(address, None)

    async def connect(self, process: Process, factory: Any, address: str) -> tuple[End, Any]:
        await self._packet(process.name, address)
        found = self._listeners.get(address)
        if found is None or self.gone:
            raise ConnectionRefusedError(111, "Connection refused")
        server, server_factory = found
        near, far = End(self, process, server.name), End(self, server, process.name)
        near.peer, far.peer = far, near
        self._ends |= {near, far}
        process.on_end.append(near.process_ended)
        server.on_end.append(far.process_ended)
        protocol = factory()
        near.protocol = protocol
        far.start(server_factory)
        protocol.connection_made(near)
        return near, protocol

    async def _packet(self, source: str, address: str) -> None:
        """One way and back. Behind a partition the attempt hangs until its caller gives up."""
        while True:
            await asyncio.sleep(2 * self.latency_s())
            found = self._listeners.get(address)
            target = found[0].name if found else ""
            stopped = found is not None and found[0].paused
            if not stopped and not self.is_held(source, target) and not self.is_held(target, source):
                return
            await asyncio.sleep(0.2)

    def latency_s(self) -> float:
        return self.world.rng.uniform(*LATENCY_S)

    def is_held(self, source: str, target: str) -> bool:
        return (source, target) in self._held

    def hold(self, source: str, target: str) -> None:
        self._held[source, target] = self._held.get((source, target), 0) + 1

    def release(self, source: str, target: str) -> None:
        left = self._held.pop((source, target), 0) - 1
        if left > 0:
            self._held[source, target] = left
            return
        for end in self.ends(source, target):
            end.release()

    def slow(self, source: str, target: str, bytes_per_s: float | None) -> None:
        if bytes_per_s is None:
            self._slow.pop((source, target), None)
        else:
            self._slow[source, target] = bytes_per_s

    def rate(self, source: str, target: str) -> float:
        return self._slow.get((source, target), 0.0)

    def ends(self, source: str, target: str) -> list[End]:
        """The sending ends from one process to another, oldest first."""
        found = [end for end in self._ends if end.process.name == source and end.peer_name == target]
        return sorted(found, key=lambda end: end.number)

    def cut_off(self) -> None:
        """For good: nothing is delivered any more, and every connection counts as closed."""
        self.gone = True
        for end in self._ends:
            end.cut_off()

    def settle(self, end: End) -> None:
        """Forget it once it is over and all that was written to it has left."""
        if end.over and not end.sending:
            self._ends.discard(end)

    def reset(self, one: str, other: str) -> int:
        """Cut every connection between two processes; how many there were."""
        ends = self.ends(one, other)
        for end in ends:
            end.reset()
        return len(ends)


class Listener:
    def __init__(self, network: Network, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._network = network
        self._address = address
        self.sockets = [_Socket(host, int(port))]

    def close(self) -> None:
        self._network.unlisten(self._address)


class _Socket:
    family = socket.AF_INET

    def __init__(self, host: str, port: int) -> None:
        self._name = (host, port)

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def fileno(self) -> int:
        """None: nothing can be written past the transport."""
        return -1


class End(asyncio.Transport):
    """One end of a connection: what is written here arrives at `peer`."""

    _count = 0

    def __init__(self, network: Network, process: Process, peer_name: str) -> None:
        super().__init__()
        End._count += 1
        self.number = End._count
        self.network = network
        self.process = process
        self.peer_name = peer_name
        self.peer: End
        self.protocol: Any = None
        # Written here and not delivered: chunks, None for the end of them.
        self._way: list[bytes | None] = []
        self._on_the_way = 0
        self._arrives_at = 0.0
        # Arrived and not read.
        self._inbox: list[bytes | None] = []
        self._reading = True
        self._called = False
        self._closing = False
        self._over = False
        # A reset is on its way: nothing is read here any more, though nobody knows yet.
        self._broken = False
        self._high: int | None = None
        self._writing_paused = False

    def start(self, factory: Callable[[], Any]) -> None:
        def made() -> None:
            self.protocol = factory()
            self.protocol.connection_made(self)
            self._call_reader()

        self.process.call_soon(made)

    def cut_off(self) -> None:
        self._closing = True

    @property
    def over(self) -> bool:
        return self._over

    @property
    def sending(self) -> bool:
        return bool(self._way)

    # What a protocol asks of its transport.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _Socket("127.0.0.1", 1) if name == "socket" else default

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._call_reader()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high

    def get_write_buffer_size(self) -> int:
        return max(0, self._on_the_way - KERNEL_BYTES)

    def write(self, data: Any) -> None:
        if self._closing or not data or not self.process.alive:
            return
        self._send(bytes(data))
        if self._high is not None and self.get_write_buffer_size() > self._high and not self._writing_paused:
            self._writing_paused = True
            self.protocol.pause_writing()

    def writelines(self, data: Any) -> None:
        self.write(b"".join(data))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._send(None)
            self._lose(None)

    def abort(self) -> None:
        if not self._over:
            self._closing = True
            self.peer.destroyed()
            self._lose(None)

    # What the network does.

    def _send(self, chunk: bytes | None) -> None:
        if self.network.gone:
            return
        self._way.append(chunk)
        self._on_the_way += len(chunk or b"")
        self._carry()

    def _carry(self) -> None:
        """Time the next delivery, unless one is under way or a partition holds it."""
        network = self.network
        source, target = self.process.name, self.peer_name
        if not self._way or self._arrives_at or network.is_held(source, target):
            return
        delay_s = network.latency_s()
        if rate := network.rate(source, target):
            delay_s += len(self._way[0] or b"") / rate
        self._arrives_at = network.world.now + delay_s
        network.world.at(self._arrives_at, self._arrive)

    def _arrive(self) -> None:
        self._arrives_at = 0.0
        if self.network.is_held(self.process.name, self.peer_name) or not self._way:
            return
        # With a link at full speed everything written so far has come along.
        count = 1 if self.network.rate(self.process.name, self.peer_name) else len(self._way)
        chunks, self._way = self._way[:count], self._way[count:]
        self._on_the_way -= sum(len(chunk or b"") for chunk in chunks)
        self.peer.arrived(chunks)
        if self._writing_paused and self.get_write_buffer_size() == 0 and not self._closing:
            self._writing_paused = False
            self.process.call_soon(self.protocol.resume_writing)
        self._carry()
        self.network.settle(self)

    def release(self) -> None:
        self._carry()

    def arrived(self, chunks: list[bytes | None]) -> None:
        if self._over or self._broken or not self.process.alive or self.network.gone:
            return
        self._inbox += chunks
        self._call_reader()

    def _call_reader(self) -> None:
        if self._inbox and self._reading and not self._called and self.protocol is not None:
            self._called = True
            self.process.call_soon(self._read)

    def _read(self) -> None:
        self._called = False
        if self._over or not self._reading or not self._inbox:
            return
        if self._inbox[0] is None:
            self._inbox.clear()
            if not self.protocol.eof_received():
                self.close()
            return
        end = self._inbox.index(None) if None in self._inbox else len(self._inbox)
        data = b"".join(chunk for chunk in self._inbox[:end] if chunk is not None)
        rest = self._inbox[end:]
        dice = self.network.world.rng
        if len(data) > 1 and not dice.randrange(SPLIT_ONE_READ_IN):
            cut = dice.randrange(1, len(data))
            rest.insert(0, data[cut:])
            data = data[:cut]
        self._inbox = rest
        self.protocol.data_received(data)
        self._call_reader()

    def _lose(self, error: Exception | None) -> None:
        if not self._over:
            self._over = True
            self.network.settle(self)
            if self.process.alive and self.protocol is not None:
                self.process.call_soon(self.protocol.connection_lost, error)

    def destroyed(self) -> None:
        """A reset is on its way here, and overtakes what is unread."""

        def act() -> None:
            if self.network.is_held(self.peer_name, self.process.name):
                # Behind a partition nobody hears of it; who writes there learns of it afterwards.
                self.network.world.after(0.5, act)
                return
            self._closing = True
            self._inbox.clear()
            self._lose(ConnectionResetError(104, "Connection reset by peer"))

        self._broken = True
        self._way.clear()
        self._on_the_way = 0
        self.network.world.after(self.network.latency_s(), act)

    def reset(self) -> None:
        """The connection breaks under both ends."""
        self.destroyed()
        self.peer.destroyed()

    def process_ended(self) -> None:
        """The kernel closes the socket: what was written still goes out."""
        if self._over:
            return
        self._over = self._closing = True
        if self._inbox:
            self.peer.destroyed()
        else:
            self._send(None)
        self.network.settle(self)
