"""A stream actor's end of the link for tests of publishers: it sends exactly what the test gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from relay.delivery import link_codec
from relay.model.record_batch import NO_EVENT_ID, RecordKind
from tests.support.records import Record, batched

DEADLINE_S = 15.0


@dataclass
class Heard:
    """What the publisher has sent so far."""

    resumes: list[link_codec.Resume] = field(default_factory=list)
    acknowledged: int = 0
    acks: int = 0
    refused: list[link_codec.Refused] = field(default_factory=list)
    fenced_by: int | None = None
    alive: list[bool] = field(default_factory=list)


class LinkClient(asyncio.Protocol):
    """Answers the challenge by itself unless `silent`; `until` waits for what the test needs."""

    def __init__(self, hello: link_codec.Hello, secret: bytes, *, silent: bool = False) -> None:
        self.heard = Heard()
        self.closed = False
        self._hello = hello
        self._secret = secret
        self._silent = silent
        self._splitter = link_codec.MessageDecoder(link_codec.MAX_MESSAGE_BYTES)
        self._changed = asyncio.Event()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._changed.set()

    def data_received(self, data: bytes) -> None:
        for kind, body in self._splitter.feed(data):
            if kind != link_codec.CHALLENGE:
                self._note(link_codec.read_down(kind, body))
            elif not self._silent:
                self.write(link_codec.hello(self._hello, self._secret, body))
        self._changed.set()

    def _note(self, message: object) -> None:
        heard = self.heard
        match message:
            case link_codec.Resume():
                heard.resumes.append(message)
            case link_codec.Ack():
                if message.session == self.session:
                    for offset, _waited_us, _answered_us in message.marks:
                        assert offset > heard.acknowledged, "acknowledgements only rise"
                        heard.acknowledged = offset
                    heard.acks += 1
            case link_codec.Refused():
                heard.refused.append(message)
            case link_codec.Fenced():
                heard.fenced_by = message.epoch
            case link_codec.Alive():
                heard.alive.append(message.connected)

    @property
    def session(self) -> int:
        return self.heard.resumes[-1].session if self.heard.resumes else 0

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def send(self, *records: Record, session: int | None = None) -> None:
        encoded = b"".join(batch.encoded for batch in batched(records))
        self.write(link_codec.batches(self.session if session is None else session, 0, encoded))

    async def until(self, condition: Callable[[Heard], bool], deadline_s: float = DEADLINE_S) -> Heard:
        """Raises TimeoutError if it does not come true."""
        async with asyncio.timeout(deadline_s):
            while not condition(self.heard):
                self._changed.clear()
                await self._changed.wait()
        return self.heard

    async def change(self) -> None:
        """Until the publisher sends anything, which it does twice a second."""
        self._changed.clear()
        async with asyncio.timeout(DEADLINE_S):
            await self._changed.wait()

    async def until_closed(self, deadline_s: float = DEADLINE_S) -> Heard:
        return await self.until(lambda _: self.closed, deadline_s)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Sender:
    """A whole stream actor's part: it keeps records until they are acknowledged and resumes where asked.

    The records' offsets are contiguous.
    """

    def __init__(self, client: LinkClient, records: list[Record]) -> None:
        self.client = client
        self.records = records
        self._session = 0
        self._sent = 0

    @property
    def done(self) -> bool:
        return self.client.heard.acknowledged >= self.records[-1].offset

    async def run(self, batch: int = 64) -> None:
        """Until the last record is acknowledged."""
        while not self.done:
            self.pump(batch)
            await self.client.change()
            assert not self.client.closed, "the publisher closed the link"

    def pump(self, batch: int) -> None:
        heard = self.client.heard
        if not heard.resumes:
            return
        resume = heard.resumes[-1]
        if resume.session != self._session:
            self._session = resume.session
            self._go_on_after(resume)
        credit = self._acknowledged + resume.max_messages
        while self._sent < min(len(self.records), credit):
            part = self.records[self._sent : min(self._sent + batch, credit)]
            self.client.send(*part)
            self._sent += len(part)

    @property
    def _acknowledged(self) -> int:
        return max(0, self.client.heard.acknowledged - self.records[0].offset + 1)

    def _go_on_after(self, resume: link_codec.Resume) -> None:
        heard, at = self.client.heard, self._acknowledged
        while at < len(self.records):
            record = self.records[at]
            if (record.epoch, record.seq) > resume.stored.epoch_seq:
                break
            heard.acknowledged = record.offset
            at += 1
        self._sent = at


def events(epoch: int, count: int, *, first: int = 1, ids: bool = True, size: int = 0) -> list[Record]:
    """Trades `first` to `first + count - 1`; their payloads name them."""
    return [
        Record(
            RecordKind.EVENT,
            n,
            epoch,
            n,
            # Some at a time, as sockets give them.
            1_767_225_600_000_000_000 + n // 5,
            n if ids else NO_EVENT_ID,
            b'{"e":"trade", "t":%d,"p":"0.10","x":"%b"}' % (n, b"x" * size),
        )
        for n in range(first, first + count)
    ]
