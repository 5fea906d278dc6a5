"""The surroundings of each measured system: a fresh nats-server, simulated exchange and consumer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.child import Child
from bench.loads import STREAMS
from relay.adapters.local.nats_server import EmbeddedNats
from relay.errors import ClusterError

# With the default limit, a consumer that falls behind for a moment would be disconnected and show as loss.
_NATS_SETTINGS = "max_pending: 2GB"
_TRICKLE_PER_S = 5.0
_POLL_S = 0.05
_QUIET_S = 0.5


@dataclass(frozen=True, slots=True)
class Testbed:
    nats_url: str
    exchange_url: str
    exchange: Child
    consumer: Child
    nats_pid: int
    directory: Path
    streams: tuple[str, ...]

    def apparatus(self) -> dict[str, int]:
        """The processes that every system shares, by name."""
        return {"exchange": self.exchange.pid, "nats-server": self.nats_pid, "consumer": self.consumer.pid}

    def offer(self, rates: Mapping[str, float]) -> None:
        """Send at exact rates from now on; streams without a rate send nothing."""
        self.exchange.ask("offer", rates={name: rates.get(name, 0.0) for name in self.streams})

    def replay(self, arrivals: Mapping[str, Sequence[float]]) -> None:
        """Send events at these times, in seconds from now, and no others."""
        self.exchange.ask("replay", arrivals=arrivals)

    def sent(self) -> dict[str, int]:
        """Events made so far, per stream."""
        counts: dict[str, int] = self.exchange.ask("sent")
        return counts

    def arrived(self) -> dict[str, int]:
        """Distinct events that the consumer has received since its last reset, per stream."""
        counts: dict[str, int] = self.consumer.ask("count")["unique"]
        return counts

    def quiet_s(self) -> float:
        """How long ago the last message came."""
        quiet_s: float = self.consumer.ask("count")["quiet_s"]
        return quiet_s

    def await_first_data(self, limit_s: float, still_runs: Callable[[], None]) -> None:
        """Return once every stream has delivered something; raises ClusterError after `limit_s`."""
        self.consumer.ask("reset", timed=False)
        self.offer(dict.fromkeys(self.streams, _TRICKLE_PER_S))
        deadline = time.monotonic() + limit_s
        while len(arrived := self.arrived()) < len(self.streams):
            if time.monotonic() > deadline:
                raise ClusterError(f"after {limit_s:g} s only {sorted(arrived)} had delivered")
            still_runs()
            time.sleep(_POLL_S)

    def wait_until_idle(self, limit_s: float) -> None:
        """Offer nothing and return once nothing more arrives."""
        self.offer({})
        self.wait(lambda: self.quiet_s() > _QUIET_S, limit_s)

    def wait(self, over: Callable[[], bool], limit_s: float) -> None:
        """Until `over`, at most `limit_s`."""
        deadline = time.monotonic() + limit_s
        while not over() and time.monotonic() < deadline:
            time.sleep(_POLL_S)


@contextmanager
def start_testbed(directory: Path, streams: tuple[str, ...] = STREAMS) -> Iterator[Testbed]:
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        nats = stack.enter_context(EmbeddedNats(directory / "nats", extra_config=_NATS_SETTINGS))
        exchange = stack.enter_context(Child("bench.exchange", streams, directory / "exchange.log"))
        consumer = stack.enter_context(
            Child("bench.consumer", ["--nats", nats.url], directory / "consumer.log")
        )
        hello: dict[str, Any] = exchange.hello
        yield Testbed(nats.url, hello["url"], exchange, consumer, nats.pid, directory, streams)
