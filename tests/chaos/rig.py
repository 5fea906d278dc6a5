"""The chaos rig: the whole relay in processes that can be killed and stopped, between an exchange that writes
down what it made and a real nats-server, with an oracle that compares the two ends.

How to write a row
------------------
    @pytest.mark.chaos(row=11, ci=True, fault="NATS restarted, then killed", figure="reconnect within 3 s")
    def test_row_11_nats_restart(rig: Rig, row: Row) -> None:
        rig.start()                                  # see `Rig.start` for streams, rates, publishers, config
        rig.flows(500)                               # each stream has 500 events more acknowledged
        pid = rig.nats.pid
        rig.nats.kill()
        row.injected("nats-server killed", not rig.nats.running)
        ...
        row.measured("reconnect", seconds, "s", limit=3.0)     # shown beside its limit, fails nothing
        rig.flows(200)                               # so that nothing is missing at the end unnoticed
        rig.judge()                                  # stops traffic, waits until settled, I1 to I8

`row.injected` refuses evidence that is false, and a test without an injection or a judgement fails.
`rig.findings()` is `judge` without raising: a row whose guard was switched off reads what was violated.
Randomness comes from `row.random`; the seed is printed, and SLUICE_CHAOS_SEED repeats it. `row.long` asks for
the lengths of the fault table; without it a row takes some 30 s at most. `ci=True` puts a row into
`make chaos-ci`.

What can be had: `rig.kill(actor)`, `rig.stop(actor)` and `rig.wake(process)` by signal;
`rig.cluster.hold(actor)` to keep a dead one down, `rig.cluster.abandon(actor)` to start a successor beside
it, `rig.cluster.beyond_reach` for actors that nobody can end, `rig.cluster.seams` for switched-off guards and
whatever else is special about a process; `rig.nats_proxies`, `rig.exchange_proxy` and `rig.between` for the
network (see proxy.py) and for a hostile peer (see frame_proxy.py); `rig.exchange.act` for what the exchange
itself can do; `rig.controller` and `rig.status` for what people see. Rows on Ray use `Bench` alone, which has
both ends and the oracle, see on_ray.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import nats

from actors.controller.actor import Controller
from relay.adapters.local.nats_server import EmbeddedNats
from relay.binance.streams import StreamSpec
from relay.config import Config, parse_config
from relay.errors import ClusterError
from relay.model.actors import ActorId, Role
from relay.model.stats import LegState, RelayStatus, StreamStats
from tests.chaos.exchange import WireExchange
from tests.chaos.processes import ActorProcess, Footprint, GoneError, MuteError, ProcessCluster, footprint
from tests.chaos.proxy import FaultProxy
from tests.chaos.rows import Row
from tests.support.oracle import (
    Evidence,
    Findings,
    Reading,
    Stored,
    Wired,
    journalled,
    judge,
    log_troubles,
    quantile_ms,
    read_stored,
)
from tests.support.polling import until

FLOOD = "btcusdt@trade"
STREAMS = (FLOOD, "ethusdt@trade", "btcusdt@aggTrade", "ethusdt@bookTicker", "btcusdt@depth@100ms")
RATE_PER_S = 100.0
# What a process may take beyond its start: the windows of its streams, and Python's own slack.
RSS_SLACK_BYTES = 64 * 1024 * 1024
STEADY_WITHIN_S = 30.0


def stream(name: str) -> ActorId:
    return ActorId(Role.STREAM, f"usdm:{name}")


def twin(name: str) -> ActorId:
    return ActorId(Role.TWIN, f"usdm:{name}")


def publisher(name: str) -> ActorId:
    return ActorId(Role.PUBLISHER, name)


def free_port() -> int:
    """Below those that the kernel gives away: it stays free while a server that had it is down."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = overlaid(found[key], value) if nested else value
    return found


class ReloadableNats(EmbeddedNats):
    """The embedded server, and a change of its settings while it runs."""

    def reload(self, extra_config: str) -> None:
        """All but its port and its store, which a running server does not change."""
        self._extra_config = extra_config
        (self._directory / "nats-server.conf").write_text(self._settings(), encoding="utf-8")
        os.kill(self.pid, signal.SIGHUP)


class Bench:
    """Both ends and the oracle, whatever runs between them. `directory` takes every file."""

    exchange: WireExchange
    nats: ReloadableNats
    config: Config
    written: dict[str, Any]

    def __init__(self, directory: Path, row: Row) -> None:
        self.directory = directory
        self.row = row
        self.accepted: dict[str, set[tuple[int, int]]] = {}
        self.logs = directory / "logs"
        self.reading: Reading | None = None
        self.wire: dict[str, list[Wired]] = {}
        self._stack = ExitStack()
        # Unix sockets take short paths only.
        self.sockets = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def open_ends(
        self,
        streams: Sequence[str],
        rate_per_s: float,
        *,
        rates: Mapping[str, float] | None = None,
        nats_config: str = "",
        nats_directory: Path | None = None,
        exchange: Mapping[str, Any] | None = None,
    ) -> None:
        where = nats_directory or self.directory / "nats"
        # A server that chose its port itself could not read its settings again.
        nats_server = ReloadableNats(where, port=free_port(), extra_config=nats_config)
        self.nats = self._stack.enter_context(nats_server)
        self.exchange = self._stack.enter_context(
            WireExchange(
                self.directory,
                seed=self.row.seed,
                expected=tuple(streams),
                rates={"*": rate_per_s, **(rates or {})},
                **(exchange or {}),
            )
        )

    def configure(self, streams: Sequence[str], over: Mapping[str, Any]) -> Config:
        base = {
            "exchange": {"venue": "usdm", "url": self.exchange.url},
            "nats": {"servers": [self.nats.url]},
            # Exactly what was sent must arrive, so nothing may be conflated.
            "queue": {"overflow": "spill"},
            "journal": {"directory": str(self.directory / "journal"), "max_bytes": "64MiB"},
            "shards": list(streams),
        }
        self.written = overlaid(base, over)
        self.config = parse_config(json.dumps(self.written), {})
        return self.config

    def specs(self) -> dict[str, StreamSpec]:
        return {one.spec.key: one.spec for one in self.config.streams}

    def journal_of(self, key: str) -> Path:
        settings = next(one for one in self.config.streams if one.spec.key == key)
        return settings.journal_directory / key.replace(":", "_").replace("/", "_")

    def note_accepted(self, key: str) -> None:
        """Call when a stream's process has just died: what its journal holds was accepted."""
        self.accepted.setdefault(key, set()).update(journalled(self.journal_of(key)))

    def sources(self) -> dict[str, str]:
        return {one.spec.jetstream_name: one.stored_subject for one in self.config.streams}

    def read_back(self, balanced: Mapping[str, bool], kept: Reading | None = None) -> Findings:
        """Read both ends, judge I1 to I5, and look into the logs for I8. `kept` was read before its JetStream
        streams were deleted."""
        self.reading = reading = read_stored(self.nats.url, self.sources())
        self.wire = self.exchange.wire()
        findings = judge(
            Evidence(
                spec=spec,
                wired=self.wire.get(spec.name, []),
                stored=[*(kept.events.get(key, []) if kept else ()), *reading.events.get(key, [])],
                losses=[
                    loss
                    for one in (kept, reading)
                    if one is not None
                    for loss in one.losses
                    if loss.stream == key
                ],
                accepted=self.accepted.get(key, ()),
                repaired=reading.repaired.get(key, ()),
                balanced=balanced.get(key, True),
            )
            for key, spec in self.specs().items()
        )
        findings.violations += log_troubles(self.logs)
        self.row.judged = True
        return findings

    def events(self, key: str) -> list[Stored]:
        """What JetStream held of a stream when it was read back."""
        assert self.reading is not None
        return self.reading.events.get(key, [])

    def p99_ms(self, keys: Collection[str], from_ns: int = 0, to_ns: int = 1 << 63) -> float | None:
        """From the socket to the store, of events read in the given span of the wall clock."""
        return quantile_ms((one for key in keys for one in self.events(key)), 0.99, from_ns, to_ns)

    def longest_s(self, keys: Collection[str], from_ns: int, to_ns: int) -> float | None:
        """The longest way of an event that was read in the given span, socket to store."""
        slowest = quantile_ms((one for key in keys for one in self.events(key)), 1.0, from_ns, to_ns)
        return None if slowest is None else slowest / 1e3

    def api(self, call: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """JetStream's own API, as an administrator would use it."""

        async def ask() -> dict[str, Any]:
            client = await nats.connect(self.nats.url, allow_reconnect=False)
            try:
                payload = json.dumps(query).encode() if query else b""
                answer = await client.request(f"$JS.API.{call}", payload, timeout=5)
                return dict(json.loads(answer.data))
            finally:
                await client.close()

        found = asyncio.run(ask())
        assert "error" not in found, found
        return found


@dataclass
class Outage:
    """The wall clock at both ends of a fault."""

    began_ns: int
    ended_ns: int = 0

    @property
    def seconds(self) -> float:
        return (self.ended_ns - self.began_ns) / 1e9


class Rig(Bench):
    """The relay's own controller over actors in processes, see `processes.ProcessCluster`."""

    def __init__(self, directory: Path, row: Row) -> None:
        super().__init__(directory, row)
        self.cluster = ProcessCluster(directory, self.sockets)
        self.nats_proxies: dict[str, FaultProxy] = {}
        self.exchange_proxy: FaultProxy | None = None
        self.between: dict[str, Any] = {}
        self.kept: Reading | None = None
        self.floor: dict[int, Footprint] = {}

    def start(
        self,
        streams: Sequence[str] = STREAMS,
        *,
        rate_per_s: float = RATE_PER_S,
        publishers: int = 2,
        proxied: Mapping[str, str] | Collection[str] = (),
        proxied_exchange: bool = False,
        between: Mapping[str, Callable[[int], Any]] | None = None,
        config: Mapping[str, Any] | None = None,
        **ends: Any,
    ) -> None:
        """Bring everything up until each stream delivers. Publishers named in `proxied` reach NATS through
        `nats_proxies` (a mapping gives the address to listen on), streams the exchange through
        `exchange_proxy`, those in `between` through what is made there of the exchange's port and is then in
        `self.between`. `ends` go to `open_ends`."""
        self.open_ends(streams, rate_per_s, **ends)
        over: dict[str, Any] = {"publishers": {"min": 1, "max": min(8, len(streams)), "scale": publishers}}
        for name in proxied:
            host = proxied[name] if isinstance(proxied, Mapping) else "127.0.0.1"
            proxy = FaultProxy(("127.0.0.1", self.nats.port), seed=self.row.seed, host=host)
            self.nats_proxies[name] = self._stack.enter_context(proxy)
            self.cluster.servers[name] = f"nats://{host}:{proxy.port}"
        if proxied_exchange:
            proxy = FaultProxy(("127.0.0.1", self.exchange.port), seed=self.row.seed)
            self.exchange_proxy = self._stack.enter_context(proxy)
            over["exchange"] = {"url": f"ws://127.0.0.1:{proxy.port}"}
        if between:
            over["shards"] = [self._led(name, between.get(name)) for name in streams]
        self.configure(streams, overlaid(over, config or {}))
        self.controller = Controller(self.cluster, self.cluster.host, end=never)
        self.controller.apply(self.config)
        self.flows(10)
        self.floor = self._footprints()

    def _led(self, name: str, make: Callable[[int], Any] | None) -> Any:
        """The stream's entry in the configuration."""
        if make is None:
            return name
        self.between[name] = self._stack.enter_context(make(self.exchange.port))
        return {"stream": name, "exchange": {"url": self.between[name].url}}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "controller"):
            self.controller.stop()
        self.cluster.close()
        super().__exit__(kind, error, trace)

    # Looking

    def status(self) -> RelayStatus | None:
        with suppress(ClusterError):
            return self.controller.status()
        return None

    def problem(self, word: str) -> str:
        """The first reported problem with this word in it; empty if there is none."""
        status = self.status()
        found = [text for text in (status.problems if status else ()) if word in text]
        return found[0] if found else ""

    def stats(self, within_s: float = 5.0) -> dict[str, StreamStats]:
        """By stream key, asked of the processes themselves; those that do not answer are left out, and of two
        instances those that are not active."""
        instances = self.instances(within_s).items()
        return {actor.key: one for actor, one in sorted(instances, key=_by_epoch) if one.leg is LegState.HOT}

    def instances(self, within_s: float = 5.0) -> dict[ActorId, StreamStats]:
        """Of every actor that reads a stream."""
        found = {}
        for actor in self.cluster.actors():
            if actor.role is not Role.PUBLISHER:
                with suppress(GoneError, MuteError):
                    stats = self.cluster.process(actor).call("stats", within_s=within_s)
                    if stats is not None:
                        found[actor] = stats
        return found

    def active(self, name: str) -> ActorId:
        """The active instance, as soon as there is one."""
        return until(lambda: self._instance(name, LegState.HOT), f"an active instance of {name}", 20.0)

    def standby(self, name: str) -> ActorId:
        """The standby, once it could take over without a loss."""
        return until(lambda: self._instance(name, LegState.WARM), f"a standby of {name}", 30.0)

    def _instance(self, name: str, state: LegState) -> ActorId | None:
        found = [
            actor
            for actor, one in sorted(self.instances(1.0).items(), key=_by_epoch)
            if actor.key == f"usdm:{name}" and one.leg is state and (one.warm is None or one.warm.ready)
        ]
        return found[-1] if found else None

    def publishers(self) -> dict[str, Any]:
        found = {}
        for actor in self.cluster.actors():
            if actor.role is Role.PUBLISHER:
                with suppress(GoneError, MuteError):
                    stats = self.cluster.process(actor).call("stats", within_s=1.0)
                    if stats is not None:
                        found[actor.key] = stats
        return found

    def flows(self, events: int, keys: Collection[str] | None = None, within_s: float = 60.0) -> float:
        """Until each stream has this many events more acknowledged; returns how long it took."""
        wanted = set(keys or self.specs())
        before: dict[tuple[str, int], int] = {}
        began = time.monotonic()

        def met() -> bool:
            now = self.stats(within_s=1.0)
            known = {key for key, _ in before}
            for key, one in now.items():
                # A later incarnation counts from 0.
                before.setdefault((key, one.epoch), 0 if key in known else one.acknowledged)
            return all(
                key in now and now[key].acknowledged >= before[key, now[key].epoch] + events for key in wanted
            )

        until(met, f"{events} events more of each stream: {self._shown()}", within_s)
        return time.monotonic() - began

    def _shown(self) -> str:
        return ", ".join(
            f"{key} {one.state} acknowledged={one.acknowledged} backlog={one.backlog_count} {one.last_error}"
            for key, one in self.stats(within_s=1.0).items()
        )

    def stream_memory(self) -> int:
        """Bytes in all the processes of streams."""
        actors = (actor for actor in self.cluster.actors() if actor.role is Role.STREAM)
        return sum(footprint(self.cluster.process(actor).pid).rss_bytes for actor in actors)

    def log(self, actor: ActorId) -> str:
        """What all its processes have written so far."""
        path = self.logs / f"{actor.role}-{quote(actor.key, safe='')}.log"
        return path.read_text(encoding="utf-8", errors="replace")

    def served_by(self, name: str) -> set[str]:
        """The keys of the streams that have an open session at a publisher."""
        return {key for key, one in self.stats(1.0).items() if one.publisher == name and one.linked}

    # Doing

    def process(self, actor: ActorId) -> ActorProcess:
        return self.cluster.process(actor)

    def kill(self, actor: ActorId) -> int:
        """SIGKILL; returns the pid. What a stream had accepted is noted for I1; where instances have journals
        of their own another one stores it under its own count, and I4 has to do."""
        process = self.cluster.process(actor)
        reads = actor.role is not Role.PUBLISHER and not self.cluster.second_node
        active = reads and self._note_counted(actor)
        process.signal(signal.SIGKILL)
        until(lambda: process.exitcode is not None or _ended(process.pid), f"the end of {actor}", 10.0, 0.001)
        if active:
            self.note_accepted(actor.key)
        return process.pid

    def _note_counted(self, actor: ActorId) -> bool:
        """What the stream says that it has accepted, by its own counts; False for a standby: it has none."""
        one = self.cluster.process(actor).call("stats", within_s=1.0)
        if one.leg is LegState.WARM:
            return False
        seqs = range(1, one.received - one.recovered - one.rejected + 1)
        self.accepted.setdefault(actor.key, set()).update((one.epoch, seq) for seq in seqs)
        return True

    def stop(self, actor: ActorId) -> ActorProcess:
        process = self.cluster.process(actor)
        process.signal(signal.SIGSTOP)
        until(lambda: _state(process.pid) == "T", f"{actor} stands still", 10.0, 0.001)
        return process

    def wake(self, process: ActorProcess) -> None:
        process.signal(signal.SIGCONT)

    @contextmanager
    def outage(self) -> Any:
        """Note when a fault began and ended, for latencies before, during and after it."""
        outage = Outage(time.time_ns())
        yield outage
        outage.ended_ns = time.time_ns()

    def keep(self, key: str) -> None:
        """Read a stream now, since what JetStream has of it is about to go."""
        spec = self.specs()[key]
        subject = next(one.stored_subject for one in self.config.streams if one.spec.key == key)
        reading = read_stored(self.nats.url, {spec.jetstream_name: subject})
        self.kept = reading._replace(losses=[])

    # Judging

    def settle(self, within_s: float = 90.0) -> dict[str, StreamStats]:
        """Stop the traffic and wait until nothing is on its way any more."""
        self.exchange.stop_traffic(20.0)
        seen: list[dict[str, int]] = []

        def met() -> dict[str, StreamStats] | None:
            stats = self.stats(within_s=1.0)
            received = {key: one.received for key, one in stats.items()}
            calm = len(stats) == len(self.specs()) and all(
                one.linked and not one.backlog_count and one.state != "blocked" for one in stats.values()
            )
            seen[:] = [*seen, received][-5:] if calm else []
            return stats if len(seen) == 5 and seen.count(received) == 5 else None

        return until(met, f"a settled relay: {self._shown()}", within_s, 0.1)

    def findings(self, within_s: float = 90.0) -> Findings:
        stats = self.settle(within_s)
        findings = self.read_back({key: one.balanced for key, one in stats.items()}, self.kept)
        findings.violations += self._grown()
        return findings

    def judge(self, within_s: float = 90.0) -> Findings:
        """Raises AssertionError that names every invariant that does not hold."""
        findings = self.findings(within_s)
        assert not findings.violations, "\n".join(findings.violations)
        assert findings.stored, "nothing was stored, so nothing was shown"
        self.row.measured("events", findings.wired, "")
        if findings.missing:
            self.row.measured("missing and announced", findings.missing, "")
        return findings

    def _footprints(self) -> dict[int, Footprint]:
        found = {}
        for actor in self.cluster.actors():
            with suppress(GoneError, FileNotFoundError):
                pid = self.cluster.process(actor).pid
                found[pid] = footprint(pid)
        return found

    def _grown(self) -> list[str]:
        """I7, of the processes that were there from start to end."""
        found: list[str] = []

        def met() -> bool:
            found[:] = list(self._excess())
            return not found

        with suppress(AssertionError):
            until(met, "descriptors and threads come back", STEADY_WITHIN_S, 0.2)
        return found

    def _excess(self) -> list[str]:
        now, found = self._footprints(), []
        memory = sum(one.queue.max_bytes for one in self.config.streams)
        # Every stream may have moved to the same publisher, with its link; an active instance has a journal.
        links = len(self.config.streams) + 3
        for pid, floor in self.floor.items():
            one = now.get(pid, floor)
            if one.descriptors > floor.descriptors + links or one.threads > floor.threads + 1:
                found.append(f"I7: process {pid} went from {floor} to {one}")
            if one.rss_bytes > floor.rss_bytes * 1.1 + memory + RSS_SLACK_BYTES:
                found.append(f"I7: process {pid} grew from {floor} to {one}")
        return found


def _by_epoch(instance: tuple[ActorId, StreamStats]) -> int:
    return instance[1].epoch


def never(code: int) -> None:
    raise AssertionError(f"the controller wanted to end with {code}")


def _state(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X"
    return line[line.rindex(")") + 2]


def _ended(pid: int) -> bool:
    return _state(pid) in ("Z", "X")
