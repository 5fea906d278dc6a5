"""An instance's connections to every publisher that its stream may use, over which it learns of its peer.

They are separate from the link that carries events, so the peer is known whatever publisher serves the
stream.
"""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial
from typing import cast

from actors.stream.assignment_source import AssignmentSource
from relay.adapters.link_client import SILENCE_S, connect
from relay.adapters.waiting import wait_until_set
from relay.delivery import link_codec
from relay.errors import LinkError
from relay.model.assignment import Assignment, PublisherEndpoint
from relay.ports import Host
from relay.standby.election import Election
from relay.standby.peer_status import PeerStatus, encode_status, read_instance_id, read_status

CHECK_EVERY_S = 0.25
RETRY_S = (0.05, 0.25)


class PeerLink(asyncio.Protocol):
    """A connection to one publisher. `closed` is set once it has ended."""

    def __init__(self, links: PeerLinks, name: str) -> None:
        self.closed = asyncio.Event()
        self.joined = False
        self._links = links
        self._name = name
        self._received_at = time.monotonic()
        self._decoder = link_codec.MessageDecoder(link_codec.MAX_HELLO_BYTES)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports implement asyncio's interface without inheriting from it.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received_at = time.monotonic()
        try:
            for kind, body in self._decoder.feed(data):
                self._on_message(kind, body)
        except LinkError:
            self.close()

    def _on_message(self, kind: int, body: bytes) -> None:
        if self.closed.is_set():
            return
        if kind == link_codec.CHALLENGE:
            self.joined = True
            self._links.link_joined(self, self._name, body)
        elif kind == link_codec.ALIVE:
            self._links.election.publisher_alive(self._name)
        elif kind == link_codec.PEER_STATUS:
            self._links.election.status_received(self._name, read_status(body))
        elif kind == link_codec.PEER_LEFT:
            self._links.election.peer_left(self._name, read_instance_id(body), time.monotonic())
        else:
            raise LinkError(f"the publisher sent a message of unknown type {kind}")

    def silent(self, now: float) -> bool:
        return now - self._received_at > SILENCE_S

    def send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def close(self) -> None:
        self.closed.set()
        if self._transport is not None:
            self._transport.abort()


class PeerLinks:
    """Of the instance `instance_id` of the stream `key`; what is received goes to `election`. Use from one
    event loop."""

    def __init__(self, key: str, instance_id: int, host: Host, election: Election) -> None:
        self.election = election
        self._key = key
        self._instance_id = instance_id
        self._host = host
        self._assignments = AssignmentSource(host, key)
        self._status = encode_status(PeerStatus(instance_id, active=False))
        self._links: dict[str, PeerLink] = {}
        self._keepers: dict[PublisherEndpoint, asyncio.Task[None]] = {}
        self._opened = 0

    @property
    def assignment(self) -> Assignment | None:
        return self._assignments.current

    def assign(self, assignment: Assignment) -> None:
        self._assignments.assign(assignment)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._assignments.load_if_unknown()
                    self._connect_to_assigned(group)
                    await self._assignments.wait_for_change(None if self.assignment else RETRY_S)
        finally:
            self.close()

    def _connect_to_assigned(self, group: asyncio.TaskGroup) -> None:
        wanted = self.assignment.endpoints if self.assignment else ()
        for endpoint in [kept for kept in self._keepers if kept not in wanted]:
            self._keepers.pop(endpoint).cancel()
        for endpoint in wanted:
            if endpoint not in self._keepers:
                self._keepers[endpoint] = group.create_task(self._stay_connected(endpoint))

    async def _stay_connected(self, endpoint: PublisherEndpoint) -> None:
        while True:
            self._opened += 1
            name = f"{endpoint.publisher}#{self._opened}"
            try:
                link = await connect(endpoint, self._host.node, partial(PeerLink, self, name))
            except LinkError:
                await asyncio.sleep(random.uniform(*RETRY_S))
                continue
            try:
                await self._wait_until_dead(link)
            finally:
                link.close()
                self._links.pop(name, None)
                self.election.link_closed(name, time.monotonic())
            # A publisher that drains accepts a connection and ends it at once: without a pause this would
            # spin.
            await asyncio.sleep(random.uniform(*RETRY_S))

    async def _wait_until_dead(self, link: PeerLink) -> None:
        """Until the link has ended, or has been silent for SILENCE_S."""
        while not await wait_until_set(link.closed, CHECK_EVERY_S):
            if link.silent(time.monotonic()):
                return

    def link_joined(self, link: PeerLink, name: str, nonce: bytes) -> None:
        hello = link_codec.Hello(stream=self._key, epoch=self._instance_id, tip="")
        link.send(link_codec.join(hello, self._host.secret, nonce))
        link.send(link_codec.frame(link_codec.STATUS, self._status))
        self._links[name] = link
        self.election.link_opened(name)

    def broadcast(self, status: PeerStatus) -> None:
        self._status = encode_status(status)
        for link in tuple(self._links.values()):
            link.send(link_codec.frame(link_codec.STATUS, self._status))

    def close(self) -> None:
        for link in tuple(self._links.values()):
            link.close()
