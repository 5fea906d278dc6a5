"""How an incarnation takes its stream over in NATS while another one does the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
import pytest

from relay.adapters.nats.fencing import SubjectState, fence_and_read
from relay.binance.event_time import event_time_ns
from relay.binance.streams import Venue, parse_stream
from relay.errors import FencedError
from relay.model.position import StoredPosition, digest_of
from relay.publish.envelope import Envelope
from tests.simulation.nats_model import NatsModel
from tests.simulation.world import World

SPEC = parse_stream(Venue.USDM, "btcusdt@bookTicker")
TEMPLATE = "binance.{venue}.{symbol}.{channel}"
SUBJECT = SPEC.subject(TEMPLATE)


class FakeNats:
    """`before` is called with the subject of each request before the server has it."""

    def __init__(self) -> None:
        self.model = NatsModel(World(0))
        self.stored = self.model.add(SPEC.jetstream_name, (SUBJECT, SPEC.fence_subject), 120.0)
        self.before: Callable[[str], None] = lambda subject: None
        self.asked: list[str] = []

    async def request(
        self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None
    ) -> bytes:
        self.asked.append(subject)
        self.before(subject)
        return orjson.dumps(self.model.answer(subject, _head(headers or {}), payload))

    def put(self, subject: str, body: bytes = b"", **fields: str) -> None:
        self.stored.put(
            subject, _head({name.replace("_", "-"): value for name, value in fields.items()}), body, 0
        )

    def fence(self, epoch: int) -> SubjectState:
        return asyncio.run(fence_and_read(self, SPEC, TEMPLATE, epoch, event_time_ns))


def _head(fields: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def test_the_first_one_puts_its_fence_and_finds_nothing_stored() -> None:
    nats = FakeNats()
    assert nats.fence(7) == SubjectState(SUBJECT, 1)
    assert nats.stored.messages[-1].fields["Sluice-Epoch"] == "7"


def test_the_same_one_finds_its_fence_and_its_last_event() -> None:
    nats = FakeNats()
    nats.fence(7)
    nats.put(SUBJECT, Nats_Msg_Id="a", Sluice_Epoch="7", Sluice_Seq="3", Sluice_Recv_Ns="9")
    assert nats.fence(7) == SubjectState(SUBJECT, 2, StoredPosition(epoch=7, seq=3, recv_ns=9, sent_ns=9))
    assert len(nats.stored.messages) == 2


def test_the_last_event_is_told_with_the_digest_of_its_payload_and_when_it_was_sent() -> None:
    nats, payload = FakeNats(), b'{"e":"bookTicker","E":1}'
    fields = {"Nats_Msg_Id": "a", "Sluice_Epoch": "6", "Sluice_Recv_Ns": "9000000"}
    nats.put(SUBJECT, Envelope(SPEC.name).wrap(payload, 9_000_000, b"a"), **fields)
    stored = nats.fence(7).stored
    assert (stored.digest, stored.sent_ns, stored.recv_ns) == (digest_of(payload), 1_000_000, 9_000_000)


def test_an_older_one_is_fenced() -> None:
    nats = FakeNats()
    nats.fence(8)
    with pytest.raises(FencedError):
        nats.fence(7)


@pytest.mark.parametrize("request_number", range(3))
def test_a_later_fence_at_any_moment_leaves_no_place_to_write_to(request_number: int) -> None:
    """Either it is seen, or the place that was read is taken by it."""
    nats = FakeNats()
    nats.fence(7)
    begun = len(nats.asked)

    def fence(subject: str) -> None:
        if len(nats.asked) == begun + 1 + request_number:
            nats.put(SPEC.fence_subject, Nats_Msg_Id="fence:8", Sluice_Epoch="8")

    nats.before = fence
    try:
        state = nats.fence(7)
    except FencedError:
        return
    assert state.last_sequence < len(nats.stored.messages)
