"""Reads the loss ledger back from JetStream, without changing anything there."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from relay.adapters.nats.consumer import REQUEST_TIMEOUT_S, connector
from relay.adapters.nats.open_client import CLIENT_FAILURES, close_client
from relay.adapters.nats.provisioning import SIDE_NAME
from relay.audit.audit import LEDGER_PREFIX
from relay.config import NatsConfig
from relay.errors import BusError, UnreadableEntryError
from relay.losses.entry import LossEntry, read_entry

# The longest wait for the next entry; NATS sends them without being asked.
SILENCE_S = 10.0
# How far the clock of NATS may be ahead of a stream actor's.
SKEW_NS = 300 * 10**9


class Ledger(NamedTuple):
    """The entries in the order of storing, and how many messages of the ledger are no entries."""

    entries: list[LossEntry]
    unreadable: int


async def read_ledger(nats: NatsConfig, since_ns: int | None) -> Ledger:
    """All entries, or at least those written from `since_ns` on (ns since 1970). Raises BusError."""
    try:
        client = await connector(nats)()
        try:
            return _read(await _stored(client, since_ns))
        finally:
            await close_client(client)
    except NotFoundError as error:
        remedy = "has a relay run against this NATS with delivery jetstream?"
        raise BusError(f"NATS has no stream {SIDE_NAME}, which holds the ledger; {remedy}") from error
    except CLIENT_FAILURES as error:
        problem = error if str(error) else "no answer in time"
        raise BusError(f"cannot read from NATS: {problem}; is it up, and may this user read?") from error


def _read(messages: list[Msg]) -> Ledger:
    entries: list[LossEntry] = []
    for message in messages:
        with suppress(UnreadableEntryError):
            entries.append(read_entry(message.data))
    return Ledger(entries, len(messages) - len(entries))


async def _stored(client: Client, since_ns: int | None) -> list[Msg]:
    start = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
    if since_ns is not None:
        at = datetime.fromtimestamp(max(0, since_ns - SKEW_NS) / 1e9, UTC)
        start = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=at)
    stream = client.jetstream(timeout=REQUEST_TIMEOUT_S)
    subscription = await stream.subscribe(
        f"{LEDGER_PREFIX}>",
        stream=SIDE_NAME,
        ordered_consumer=True,
        config=start,
    )
    info = await subscription.consumer_info()
    delivered = info.delivered.consumer_seq if info.delivered else 0
    return [await subscription.next_msg(SILENCE_S) for _ in range(delivered + (info.num_pending or 0))]
