"""The systems that are compared, each as its users run it, in processes of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from bench.child import Child
from bench.loads import STREAMS
from bench.sluice import running_sluice
from bench.testbed import Testbed


class Running(Protocol):
    """A running system: `relay` are its own processes by name, `daemons` those that it depends on (Ray's)."""

    @property
    def name(self) -> str: ...

    def relay(self) -> dict[str, int]: ...

    def daemons(self) -> dict[str, int]: ...

    def stored(self) -> int | None:
        """How many events JetStream holds; None for a system that stores nothing."""

    def notes(self) -> dict[str, int]:
        """The system's own counts, as far as it has any."""

    def check(self) -> None:
        """Raises ClusterError if it has ended."""


@dataclass(frozen=True, slots=True)
class System:
    """`start` returns a context; once it is entered the processes exist, but need not deliver yet."""

    name: str
    slug: str
    start: Callable[[Testbed], AbstractContextManager[Running]]


class Baseline:
    """One process."""

    def __init__(self, name: str, child: Child, *, reports: bool) -> None:
        self._name = name
        self._child = child
        self._reports = reports

    @property
    def name(self) -> str:
        return self._name

    def relay(self) -> dict[str, int]:
        return {self._name: self._child.pid}

    def daemons(self) -> dict[str, int]:
        return {}

    def stored(self) -> int | None:
        return None

    def notes(self) -> dict[str, int]:
        return dict(self._child.ask("report")) if self._reports else {}

    def check(self) -> None:
        self._child.check()


def _baseline(name: str, slug: str, module: str, *, reports: bool) -> System:
    @contextmanager
    def start(testbed: Testbed) -> Iterator[Running]:
        arguments = ["--exchange", testbed.exchange_url, "--nats", testbed.nats_url, *STREAMS]
        with Child(module, arguments, testbed.directory / "baseline.log") as child:
            yield Baseline(name, child, reports=reports)

    return System(name, slug, start)


def _sluice(name: str, slug: str, delivery: str) -> System:
    return System(name, slug, lambda testbed: running_sluice(testbed, name, delivery))


_ALL = (
    _sluice("Sluice, JetStream", "sluice", "jetstream"),
    _sluice("Sluice, core", "sluice-core", "core"),
    _baseline("forwarder", "forwarder", "bench.forwarder", reports=False),
    _baseline("old design", "old", "bench.old_design", reports=True),
)
SYSTEMS = {system.slug: system for system in _ALL}
