"""A publisher's data plane: the streams that are linked, and the sessions in which they send records.

A session begins when the publisher knows the stream's stored position. It ends as soon as that
position is in doubt: after a refusal, silence, or a lost connection. The next session begins with the
position that NATS then has.
Tasks exist only for opening sessions; actors/publisher/dispatcher.py does what happens inside them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

from actors.publisher.dispatcher import Dispatcher, DispatcherLimits
from actors.publisher.gauges import PublisherGauges
from actors.publisher.peer_relay import PeerRelay
from actors.publisher.session import StreamSession
from relay.adapters.link_server import LinkServerConnection
from relay.adapters.nats.connection import ConnectionKeeper, NatsConnection
from relay.adapters.nats.fencing import SubjectState, fence_and_read, read_position
from relay.binance.event_time import event_time_ns
from relay.binance.streams import StreamSpec, Venue, parse_stream
from relay.config import NatsConfig
from relay.delivery import link_codec
from relay.errors import BusError, ConfigError, FencedError, LinkError
from relay.model.choices import Delivery
from relay.model.record_batch import RecordBatch
from relay.publish.encoder import Route
from relay.publish.lane import Lane, LaneLimits

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSettings:
    """Settings of one publisher; those of a single stream come with its link."""

    nats: NatsConfig
    lane: LaneLimits = field(default_factory=LaneLimits)
    dispatcher: DispatcherLimits = field(default_factory=DispatcherLimits)


class PublisherSessions:
    """Owns the links and the NATS connection, as a LinkServerListener. Use from one event loop."""

    def __init__(self, name: str, settings: PublisherSettings, gauges: PublisherGauges) -> None:
        self.draining = False
        self.active_streams: dict[str, int] = {}
        self._settings = settings
        self._gauges = gauges
        self._chained = settings.nats.delivery is Delivery.JETSTREAM
        self._links: dict[LinkServerConnection, StreamSession] = {}
        self._streams: dict[str, StreamSession] = {}
        self._peer_relay = PeerRelay()
        self._last_session_number = 0
        self._emptied = asyncio.Event()
        self._dispatcher = Dispatcher(
            settings.dispatcher, gauges, confirms=not self._chained, on_doubt=self._doubt
        )
        self.connection_keeper = ConnectionKeeper(
            settings.nats,
            f"sluice publisher {name}",
            on_open=self._on_open,
            on_lost=self._on_lost,
            on_reply=self._dispatcher.on_reply,
            on_error=self._on_error,
        )

    @property
    def streams(self) -> tuple[str, ...]:
        """The keys of the linked streams."""
        return tuple(sorted(self._streams))

    @property
    def queued(self) -> int:
        return sum(session.lane.queued for session in self._links.values())

    @property
    def in_flight(self) -> int:
        return sum(session.lane.chain.messages for session in self._links.values())

    def waiting_s(self, now: float) -> float:
        """For how many seconds the oldest message that NATS has not answered has been in flight."""
        oldest = [session.lane.chain.oldest_sent_at for session in self._links.values()]
        return max((now - at for at in oldest if at is not None), default=0.0)

    def measure(self) -> None:
        """Find the streams that have sent events since the last call."""
        active = [(key, session) for key, session in self._streams.items() if session.is_active]
        self.active_streams = {key: session.lane.epoch for key, session in active}
        for session in self._streams.values():
            session.is_active = False

    async def drain(self) -> None:
        """Accept no more streams and wait until the last one has left."""
        self.draining = True
        if self._streams:
            await self._emptied.wait()

    def watch(self, now: float) -> None:
        self._dispatcher.watch(now)
        self._peer_relay.send_alive(link_codec.alive(self.connection_keeper.connection is not None))

    def send_alive(self) -> None:
        message = link_codec.alive(self.connection_keeper.connection is not None)
        for link in tuple(self._links):
            link.send(message)

    def close_links(self, reason: str) -> None:
        for link in (*self._links, *self._peer_relay.links):
            link.close(reason)

    def on_stream(self, link: LinkServerConnection, hello: link_codec.Hello) -> None:
        spec = _spec(hello.stream)
        if self.draining:
            raise LinkError("the publisher is draining")
        other = self._streams.get(spec.key)
        if other is not None and hello.epoch < other.lane.epoch:
            _fence_out(link, other.lane.epoch)
            return
        known = self._peer_relay.epoch_of(spec.key)
        if hello.epoch < known:
            _fence_out(link, known)
            return
        if other is not None:
            other.link.close("the stream has opened another link")
            self._forget(other)
        session = StreamSession(link, Lane(spec, hello.epoch, self._settings.lane), hello.tip)
        self._links[link] = self._streams[spec.key] = session
        self._emptied.clear()
        self._open(session)

    def on_peer(self, link: LinkServerConnection, hello: link_codec.Hello) -> None:
        if self.draining:
            raise LinkError("the publisher is draining")
        self._peer_relay.join(link, _spec(hello.stream).key, hello.epoch)

    def on_status(self, link: LinkServerConnection, status: bytes) -> None:
        key = self._peer_relay.forward(link, status)
        session = self._streams.get(key)
        if session is not None and session.lane.epoch < (epoch := self._peer_relay.epoch_of(key)):
            _fence_out(session.link, epoch)

    def on_batches(
        self, link: LinkServerConnection, session_number: int, skip: int, batches: list[RecordBatch]
    ) -> None:
        session = self._links.get(link)
        if session is None:
            raise LinkError("an instance sent events on its peer link")
        session.is_active = True
        # What the stream sent before it knew of a new session, it sends again in the new one.
        if session.lane.open and session.lane.session == session_number:
            self._gauges.batches += len(batches)
            session.lane.accept(batches, skip)
            self._dispatcher.offer(session)

    def on_closed(self, link: LinkServerConnection, reason: str) -> None:
        self._peer_relay.peer_left(link)
        session = self._links.get(link)
        if session is not None:
            _log.info("the link of %s ended: %s", session.lane.spec.key, reason)
            self._forget(session)

    def on_rejected(self, reason: str) -> None:
        self._gauges.error("link", f"a peer was rejected: {reason}")
        _log.warning("a peer was rejected: %s", reason)

    def _forget(self, session: StreamSession) -> None:
        self._end(session)
        del self._links[session.link]
        del self._streams[session.lane.spec.key]
        if not self._streams:
            self._emptied.set()

    def _open(self, session: StreamSession) -> None:
        connection = self.connection_keeper.connection
        if connection is None:
            return
        if self._chained:
            session.opening = asyncio.create_task(self._keep_opening(session, connection))
            session.opening.add_done_callback(_raise_failure)
        else:
            subject = session.lane.spec.subject(self._settings.nats.subject)
            # Core NATS stores nothing: the stream continues after the last event that was acknowledged.
            self._begin(session, connection, SubjectState(subject, 0))

    async def _keep_opening(self, session: StreamSession, connection: NatsConnection) -> None:
        """Retry until a session is open; cancelled with the link or the connection."""
        while True:
            await asyncio.sleep(session.next_try_s(time.monotonic()))
            try:
                await self._open_chained(session, connection)
            except FencedError as error:
                _fence_out(session.link, error.epoch)
            except BusError as error:
                self._on_error(f"{session.lane.spec.key} cannot be published: {error}")
                continue
            return

    async def _open_chained(self, session: StreamSession, connection: NatsConnection) -> None:
        lane, template = session.lane, self._settings.nats.subject
        if session.tip:
            # If the tip is not the last message stored, NATS refuses the first event, and the session ends.
            tip, session.tip = session.tip, ""
            state = await read_position(connection, lane.spec, template)
            self._begin(session, connection, state)
            lane.chain.expect(state.last_sequence, tip.encode())
        else:
            state = await fence_and_read(connection, lane.spec, template, lane.epoch, event_time_ns)
            self._begin(session, connection, state)
            lane.chain.expect(state.last_sequence)

    def _begin(self, session: StreamSession, connection: NatsConnection, state: SubjectState) -> None:
        self._last_session_number = number = self._last_session_number + 1
        route = Route(
            subject=state.subject,
            repair_subject=session.lane.spec.repair_subject(self._settings.nats.subject),
            reply_prefix=f"{connection.inbox}.{number}." if self._chained else "",
            with_headers=self._settings.nats.headers,
            max_payload=connection.max_payload,
        )
        session.opening = None
        session.lane.begin(number, route)
        self._dispatcher.begin(session)
        limits = self._settings.lane
        message = link_codec.Resume(number, state.stored, limits.credit_messages, limits.credit_bytes)
        session.link.send(link_codec.resume(message))

    def _end(self, session: StreamSession) -> None:
        if session.opening is not None:
            session.opening.cancel()
            session.opening = None
        self._dispatcher.end(session)

    def _doubt(self, session: StreamSession, code: str, text: str) -> None:
        """End the session and open a new one from the stored position; the stream sends its records again."""
        self._gauges.error(code, f"{session.lane.spec.key}: {text}")
        _log.warning("%s: %s; asking NATS what is stored", session.lane.spec.key, text)
        self._end(session)
        self._open(session)

    def _on_open(self, connection: NatsConnection) -> None:
        self._dispatcher.connected(connection)
        for session in self._links.values():
            session.paced_until = 0.0
            self._open(session)
        self.send_alive()

    def _on_lost(self, reason: str) -> None:
        self._gauges.last_error = reason
        for session in self._links.values():
            self._end(session)
        self._dispatcher.disconnected()
        self.send_alive()

    def _on_error(self, text: str) -> None:
        self._gauges.error("nats", text)
        _log.warning("%s", text)


def _fence_out(link: LinkServerConnection, epoch: int) -> None:
    link.send(link_codec.fenced(epoch))
    link.close(f"fenced by epoch {epoch}")


def _spec(key: str) -> StreamSpec:
    """Raises LinkError if the key names no stream."""
    venue, _, name = key.partition(":")
    try:
        return parse_stream(Venue(venue), name)
    except (ValueError, ConfigError) as error:
        raise LinkError(f"{key!r} is no stream: {error}") from error


def _raise_failure(task: asyncio.Task[None]) -> None:
    """An unexpected failure goes to the loop's exception handler, which ends the process."""
    if not task.cancelled():
        task.result()
