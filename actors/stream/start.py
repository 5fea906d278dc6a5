"""How a stream relay begins: afresh, or (actors/standby/takeover.py) where another instance left off."""

from __future__ import annotations

import time
from typing import Protocol

from actors.stream.feed_keeper import FeedKeeper
from actors.stream.node_files import connect_gate, epoch_directory
from relay.config import StreamSettings
from relay.delivery.window import SendWindow
from relay.intake.intake import Intake
from relay.journal.journal import Journal
from relay.model.position import StoredPosition
from relay.model.record_batch import RecordBatch
from relay.ports import Host


class StartedRelay(Protocol):
    """What a start may use of the relay that it starts."""

    settings: StreamSettings
    epoch: int
    window: SendWindow
    intake: Intake
    feed: FeedKeeper

    def accept(self, payloads: list[bytes], recv_ns: int) -> None: ...
    def preceded_by(self, stored: StoredPosition) -> None: ...


class Start(Protocol):
    """What differs between beginning afresh and taking over. Called on the relay's event loop, in the order
    of the methods here; `position_known` may come before or after `run` has begun, and more than once."""

    @property
    def epoch(self) -> int:
        """The new incarnation: above every earlier one of the stream that this node knows of."""
        ...

    def journal_recovered(self, last: RecordBatch | None) -> None:
        """The last event in the journal of this node; None if there is none. Not called without a journal."""

    def feed_for(self, relay: StartedRelay) -> FeedKeeper:
        """The exchange connection of the relay, whose `feed` is not set yet."""
        ...

    async def run(self, relay: StartedRelay) -> None:
        """Read from the exchange until cancelled."""

    def position_known(self, relay: StartedRelay, stored: StoredPosition) -> None:
        """A publisher has fenced earlier incarnations and found what is stored last."""


class FreshStart:
    """A stream without a standby instance, or a new process of one: it continues from its own journal."""

    def __init__(self, settings: StreamSettings, host: Host) -> None:
        self.epoch = Journal.next_epoch(epoch_directory(settings, host), time.time_ns() // 1_000_000)
        self._settings = settings
        self._gate = connect_gate(settings, host, settings.spec.key)

    def journal_recovered(self, last: RecordBatch | None) -> None:
        """Nothing to do: the window and the intake of the relay already continue after that event."""

    def feed_for(self, relay: StartedRelay) -> FeedKeeper:
        return FeedKeeper(self._settings, self._gate, relay.accept, relay.intake.disconnected)

    async def run(self, relay: StartedRelay) -> None:
        await relay.feed.run()

    def position_known(self, relay: StartedRelay, stored: StoredPosition) -> None:
        relay.preceded_by(stored)
