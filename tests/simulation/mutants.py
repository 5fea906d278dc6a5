"""Guards switched off, one at a time: the simulation is worth as much as it notices of that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from unittest import mock

from actors.standby.replay_memory import ReplayMemory
from relay.adapters.link_client import LinkClient
from relay.adapters.nats import fencing
from relay.delivery.window import SendWindow
from relay.publish.chain import Chain
from relay.standby.election import Election
from relay.standby.replay_buffer import AppendResult
from tests.simulation import faults
from tests.simulation.faults import Fault
from tests.simulation.scene import Scene

Mutant = Callable[[Scene], AbstractContextManager[object]]


def journal_off(scene: Scene) -> AbstractContextManager[object]:
    """What is accepted is written nowhere."""
    scene.disk.swallows = True
    return nullcontext()


def chain_off(scene: Scene) -> AbstractContextManager[object]:
    """No event names what must be stored before it."""
    return mock.patch.object(Chain, "expect", lambda self, place, last_id=b"": None)


def fence_off(scene: Scene) -> AbstractContextManager[object]:
    """A new incarnation only reads where the stream stands."""

    async def take_over(*taken: object) -> fencing.SubjectState:
        bus, spec, template, _, event_time = taken
        found = await fencing.read_position(bus, spec, template)  # type: ignore[arg-type]
        last = await fencing._last(bus, spec, found.subject, event_time)  # type: ignore[arg-type]
        return found if last is None else replace(found, stored=last.position)

    return mock.patch("actors.publisher.sessions.fence_and_read", take_over)


def resend_off(scene: Scene) -> AbstractContextManager[object]:
    """What was in flight when a link broke counts as done."""

    def rewind(self: SendWindow) -> None:
        if self._in_flight:
            self.acknowledge(self._in_flight[-1].offset)

    return mock.patch.object(SendWindow, "rewind", rewind)


def watchdog_off(scene: Scene) -> AbstractContextManager[object]:
    """A silent publisher is never left."""
    return mock.patch.object(LinkClient, "silent", lambda self, now: False)


def memory_off(scene: Scene) -> AbstractContextManager[object]:
    """The standby instance believes to remember, and has nothing."""
    return mock.patch.multiple(
        ReplayMemory, append=lambda self, payloads, recv_ns: AppendResult(len(payloads), False), covers=True
    )


def election_off(scene: Scene) -> AbstractContextManager[object]:
    """No instance ever follows an active one."""
    must = Election.must_take_over

    def must_not(self: Election, *arguments: object, covers: bool) -> bool:
        return self.active is None and must(self, *arguments, covers=covers)  # type: ignore[arg-type]

    return mock.patch.object(Election, "must_take_over", must_not)


# What keeps a stream with two instances whole, against the faults of one of them.
STANDBY_MUTANTS: tuple[Mutant, ...] = (memory_off, election_off)

# Each with the faults that it guards against.
MUTANTS: dict[Mutant, tuple[Fault, ...]] = {
    journal_off: (faults.kill_stream, faults.kill_nats, faults.flood),
    chain_off: (faults.refuse_some, faults.flood, faults.break_nats_connection),
    fence_off: (
        faults.replace_a_stopped_stream,
        faults.part_publisher_and_nats,
        faults.stop_publisher,
        faults.kill_stream,
    ),
    resend_off: (faults.kill_publisher, faults.break_link, faults.flood),
    watchdog_off: (faults.stop_publisher,),
}
