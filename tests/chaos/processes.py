"""The relay's actors as processes of their own, kept alive as Ray keeps them, without Ray.

A child is forked from a server that has everything imported, so it is there in milliseconds. It holds the
actor as a plain object and answers calls of its methods over a pipe.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from actors.publisher.actor import PublisherActor, PublisherSettings
from actors.standby.actor import StandbyActor
from actors.stream.actor import StreamActor
from relay.config import NatsConfig, StreamSettings
from relay.control.store import assignment_key
from relay.model.actors import ActorId, Role, Silence
from relay.model.assignment import Assignment, decode_assignment
from relay.observability.metrics import NoMetrics
from relay.ports import Observation
from tests.chaos import small_memory
from tests.chaos.clock import follow
from tests.chaos.mutants import switch_off

if TYPE_CHECKING:
    from relay.ports import Room

# What Ray takes from the death of an actor's process to the answer of the next one.
RESTART_S = 1.9
SLICE_S = 0.02
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
RESOLV_CONF = Path("/etc/resolv.conf")
SECRET = b"a secret of the chaos rig"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, "simulator.server", "uvloop"])


@dataclass(frozen=True, kw_only=True)
class Seams:
    """What a test does to a process before its actor starts: guards that are switched off (see `mutants`), a
    limit on the size of its files, the network namespace that it enters, the clock that it follows (see
    `clock`), the group of processes that its memory counts for (see `small_memory`), what it takes for
    /etc/resolv.conf, its environment, and figures of the product by their full names, for rows that last
    shorter than them."""

    without: tuple[str, ...] = ()
    file_size_bytes: int | None = None
    network: str = ""
    clock: Path | None = None
    memory: Path | None = None
    resolv_conf: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


class FileFacts:
    """The key-value store of the cluster's head, as files."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)

    def load(self, fact: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return self._path(fact).read_bytes()
        return None

    def load_all(self, prefix: str) -> Mapping[str, bytes]:
        names = [unquote(path.name) for path in self._directory.iterdir() if path.suffix != ".new"]
        found = {name.removeprefix(prefix): self.load(name) for name in names if name.startswith(prefix)}
        return {name: value for name, value in found.items() if value is not None}

    def save(self, fact: str, value: bytes) -> None:
        new = self._path(fact).with_suffix(".new")
        new.write_bytes(value)
        new.rename(self._path(fact))

    def forget(self, fact: str) -> None:
        self._path(fact).unlink(missing_ok=True)

    def _path(self, fact: str) -> Path:
        return self._directory / quote(fact, safe="").replace(".", "%2E")


class ProcessHost:
    """One node; travels to each child."""

    address = "127.0.0.1"
    secret = SECRET

    def __init__(self, facts: Path, sockets: Path, node: str = "node-1") -> None:
        self._facts = facts
        self.socket_directory = sockets
        self.node = node

    @cached_property
    def metrics(self) -> NoMetrics:
        return NoMetrics()

    def assignment(self, stream: str) -> Assignment | None:
        encoded = FileFacts(self._facts).load(assignment_key(stream))
        return decode_assignment(encoded) if encoded else None

    def set_title(self, text: str) -> None:
        """Nobody looks at these."""


class GoneError(Exception):
    """The process has ended, or was never there."""


class MuteError(Exception):
    """The process did not answer in time."""


def become_child(log: Path) -> None:
    """Out of the terminal's process group, dead with the server that forked it, everything into `log`."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def _live(make: Callable[[], Any], pipe: Connection, log: Path, seams: Seams) -> None:
    become_child(log)
    try:
        _apply(seams)
        actor = make()
    except BaseException:  # noqa: BLE001 - the log is all that is left of a child
        traceback.print_exc()
        os._exit(1)
    lock = threading.Lock()
    while True:
        try:
            request = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        threading.Thread(target=_answer, args=(actor, pipe, lock, *request), daemon=True).start()


def _answer(actor: Any, pipe: Connection, lock: threading.Lock, number: int, method: str, args: Any) -> None:
    try:
        result = getattr(actor, method)(*args)
    except Exception as error:  # noqa: BLE001 - Ray answers the caller and goes on, too
        logging.getLogger(__name__).warning("%s failed: %r", method, error)
        result = None
    with lock, suppress(OSError):
        pipe.send((number, result))


def _apply(seams: Seams) -> None:
    if seams.network:
        descriptor = os.open(f"/run/netns/{seams.network}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(descriptor)
    if seams.resolv_conf is not None:
        cover(RESOLV_CONF, seams.resolv_conf)
    if seams.file_size_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (seams.file_size_bytes, resource.RLIM_INFINITY))
    if seams.memory is not None:
        small_memory.enter(seams.memory)
    if seams.clock is not None:
        follow(seams.clock)
    os.environ.update(seams.environment)
    for name, value in seams.figures.items():
        module, _, figure = name.rpartition(".")
        assert hasattr(importlib.import_module(module), figure), name
        setattr(importlib.import_module(module), figure, value)
    for guard in seams.without:
        switch_off(guard)


def cover(path: Path, with_file: Path) -> None:
    """For this process and those that it starts: another file at `path`. Raises OSError without the right."""
    libc = ctypes.CDLL(None, use_errno=True)
    source, target = os.fsencode(with_file), os.fsencode(path.resolve())
    if (
        libc.unshare(CLONE_NEWNS)
        or libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
        or libc.mount(source, target, None, ctypes.c_ulong(MS_BIND), None)
    ):
        raise OSError(ctypes.get_errno(), f"{path} cannot be covered")


class ActorProcess:
    """The parent's end; calls may come from several threads."""

    def __init__(self, make: Callable[[], Any], log: Path, seams: Seams) -> None:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_live, args=(make, theirs, log, seams), daemon=True)
        self._process.start()
        theirs.close()
        self._lock = threading.Lock()
        self._answers: dict[int, Any] = {}
        self._last = 0
        self.pid = self._process.pid or 0
        self.answered = False
        self._exitcode: int | None = None

    @property
    def exitcode(self) -> int | None:
        """None while it runs."""
        if self._exitcode is None:
            with suppress(ValueError):  # another thread has let go of it
                self._exitcode = self._process.exitcode
        return self._exitcode

    def ask(self, method: str, *arguments: Any) -> int:
        with self._lock:
            self._last += 1
            try:
                self._pipe.send((self._last, method, arguments))
            except OSError as error:
                raise GoneError from error
            return self._last

    def answer(self, number: int, deadline: float) -> Any:
        """Raises MuteError at the monotonic `deadline`, GoneError if the process has ended."""
        while True:
            with self._lock:
                self._receive()
                if number in self._answers:
                    self.answered = True
                    return self._answers.pop(number)
            if time.monotonic() > deadline:
                raise MuteError

    def _receive(self) -> None:
        try:
            if self._pipe.poll(SLICE_S):
                number, result = self._pipe.recv()
                self._answers[number] = result
        except (EOFError, OSError) as error:
            raise GoneError from error

    def call(self, method: str, *arguments: Any, within_s: float = 5.0) -> Any:
        return self.answer(self.ask(method, *arguments), time.monotonic() + within_s)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        if self._process.exitcode is None:
            self._process.kill()
        self._process.join(10)
        self._exitcode = self._process.exitcode
        self._process.close()
        self._pipe.close()


@dataclass
class _Kept:
    """One actor over its incarnations; `process` is None while none runs."""

    make: Callable[[], Any]
    process: ActorProcess | None = None
    restart_at: float | None = None
    held: bool = False
    asked: int | None = None
    drain: tuple[int, float] | None = None
    drained: Observation | None = None


@dataclass
class Death:
    actor: ActorId
    pid: int
    exitcode: int
    at: float


@dataclass(frozen=True)
class _MakeStream:
    settings: StreamSettings
    host: ProcessHost

    def __call__(self) -> StreamActor:
        return StreamActor(self.settings, self.host)


@dataclass(frozen=True)
class _MakeInstance:
    settings: StreamSettings
    host: ProcessHost
    twin: bool

    def __call__(self) -> StandbyActor:
        return StandbyActor(self.settings, self.host, self.twin)


@dataclass(frozen=True)
class _MakePublisher:
    name: str
    nats: NatsConfig
    host: ProcessHost

    def __call__(self) -> PublisherActor:
        return PublisherActor(self.name, PublisherSettings(nats=self.nats), self.host)


class ProcessCluster(FileFacts):
    """Implements relay.ports.Cluster. A process that ends without being removed comes back after RESTART_S.

    `seams` holds what is special about an actor's processes, `servers` another NATS address of a publisher.
    With `second_node` twins run on a node of their own: with other sockets and other journals.
    A process `beyond_reach` is not ended when its actor is removed, as on a node that does not answer. Those
    that are `speechless` answer no call of the controller, as where they have no time for it.
    """

    def __init__(self, directory: Path, sockets: Path) -> None:
        super().__init__(directory / "facts")
        self.host = ProcessHost(directory / "facts", sockets)
        self.second_node = False
        self._root = directory
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.seams: dict[ActorId, Seams] = {}
        self.servers: dict[str, str] = {}
        self.deaths: list[Death] = []
        self.beyond_reach: set[ActorId] = set()
        self.speechless: set[ActorId] = set()
        self._left_alone: list[ActorProcess] = []
        self._kept: dict[ActorId, _Kept] = {}
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._keeper.start()

    def close(self) -> None:
        self._ending.set()
        self._keeper.join()
        self.beyond_reach.clear()
        for actor in self.actors():
            self.remove(actor)
        for process in self._left_alone:
            process.end()

    # What a test does

    def process(self, actor: ActorId) -> ActorProcess:
        """Raises GoneError while none runs."""
        with self._lock:
            process = self._kept[actor].process if actor in self._kept else None
        if process is None:
            raise GoneError
        return process

    def hold(self, actor: ActorId) -> None:
        """Once its process ends, start no other one until `release`."""
        with self._lock:
            self._kept[actor].held = True

    def release(self, actor: ActorId) -> None:
        with self._lock:
            kept = self._kept[actor]
            kept.held, kept.restart_at = False, time.monotonic()

    def abandon(self, actor: ActorId) -> ActorProcess:
        """Forget a process that still runs and start its successor, as after a death reported by mistake."""
        with self._lock:
            kept = self._kept[actor]
            assert kept.process is not None
            old = kept.process
            self._start(actor, kept)
        return old

    # What the controller does

    def actors(self) -> frozenset[ActorId]:
        with self._lock:
            return frozenset(self._kept)

    def nodes(self, label: str | None) -> frozenset[str]:
        return frozenset({"node-1", "node-2"} if self.second_node else {"node-1"})

    def create_stream(self, settings: StreamSettings, room: Room) -> None:
        make = (
            _MakeInstance(settings, self.host, False)
            if settings.critical
            else _MakeStream(settings, self.host)
        )
        self._create(ActorId(Role.STREAM, settings.spec.key), make)

    def create_twin(self, settings: StreamSettings, room: Room) -> None:
        host = self.host
        if self.second_node:
            sockets = host.socket_directory / "2"
            sockets.mkdir(mode=0o700, exist_ok=True)
            host = ProcessHost(self._root / "facts", sockets, "node-2")
            journals = {"journal_directory": self._root / "journal-2"}
            settings = settings.model_copy(update=journals)
        self._create(ActorId(Role.TWIN, settings.spec.key), _MakeInstance(settings, host, True))

    def create_publisher(self, publisher: str, nats: NatsConfig, room: Room) -> None:
        if publisher in self.servers:
            nats = nats.model_copy(update={"servers": (self.servers[publisher],)})
        self._create(ActorId(Role.PUBLISHER, publisher), _MakePublisher(publisher, nats, self.host))

    def _create(self, actor: ActorId, make: Callable[[], Any]) -> None:
        with self._lock:
            if actor not in self._kept:
                kept = self._kept[actor] = _Kept(make)
                self._start(actor, kept)

    def _start(self, actor: ActorId, kept: _Kept) -> None:
        log = self.logs / f"{actor.role}-{quote(actor.key, safe='')}.log"
        kept.process = ActorProcess(kept.make, log, self.seams.get(actor, Seams()))
        kept.restart_at = kept.asked = kept.drain = kept.drained = None

    def _keep(self) -> None:
        while not self._ending.wait(SLICE_S):
            now = time.monotonic()
            with self._lock:
                for actor, kept in tuple(self._kept.items()):
                    self._restart(actor, kept, now)

    def _restart(self, actor: ActorId, kept: _Kept, now: float) -> None:
        process = kept.process
        if process is not None and process.exitcode is not None:
            self.deaths.append(Death(actor, process.pid, process.exitcode, now))
            process.end()
            kept.process, kept.restart_at = None, now + RESTART_S
        if kept.process is None and not kept.held and now >= (kept.restart_at or 0.0):
            self._start(actor, kept)

    def observe(self, actors: Iterable[ActorId], deadline_s: float) -> Mapping[ActorId, Observation]:
        asked = {actor: self._ask(actor) for actor in actors}
        deadline = time.monotonic() + deadline_s
        return {actor: self._outcome(actor, found, deadline) for actor, found in asked.items()}

    def _ask(self, actor: ActorId) -> tuple[ActorProcess, int] | None:
        """One call at a time: a stopped process does not collect calls to answer all at once."""
        with self._lock:
            kept = self._kept.get(actor)
            if kept is None or kept.process is None:
                return None
            with suppress(GoneError):
                kept.asked = kept.asked or kept.process.ask("stats")
                return kept.process, kept.asked
        return None

    def _outcome(
        self, actor: ActorId, asked: tuple[ActorProcess, int] | None, deadline: float
    ) -> Observation:
        if actor not in self._kept:
            return Silence.DEAD
        if asked is None:
            return Silence.STARTING
        if actor in self.speechless:
            return Silence.UNRESPONSIVE
        process, number = asked
        try:
            stats: Observation | None = process.answer(number, deadline)
        except MuteError:
            return Silence.UNRESPONSIVE if process.answered else Silence.STARTING
        except (GoneError, ValueError):
            stats = None
        with self._lock:
            if actor in self._kept and self._kept[actor].asked == number:
                self._kept[actor].asked = None
        return stats or Silence.STARTING

    def assign(self, actor: ActorId, assignment: Assignment) -> None:
        with suppress(GoneError):
            self.process(actor).ask("assign", assignment)

    def begin_drain(self, actor: ActorId, deadline_s: float) -> None:
        with self._lock, suppress(GoneError):
            kept = self._kept[actor]
            if kept.drain is None and kept.process is not None:
                kept.drain = kept.process.ask("drain", deadline_s), time.monotonic() + deadline_s + 6.0

    def drained(self, actor: ActorId) -> Observation | None:
        with self._lock:
            kept = self._kept.get(actor)
            if kept is None or kept.drain is None or kept.process is None:
                return Silence.DEAD
            if kept.drained is None:
                number, deadline = kept.drain
                with suppress(MuteError, GoneError):
                    kept.drained = kept.process.answer(number, 0.0)
                if kept.drained is None and time.monotonic() > deadline:
                    kept.drained = Silence.UNRESPONSIVE
            return kept.drained

    def remove(self, actor: ActorId) -> None:
        with self._lock:
            kept = self._kept.pop(actor, None)
            if kept is not None and kept.process is not None:
                if actor in self.beyond_reach:
                    self._left_alone.append(kept.process)
                else:
                    kept.process.end()


@dataclass
class Footprint:
    """Of one process; from /proc."""

    rss_bytes: int
    descriptors: int
    threads: int


def footprint(pid: int) -> Footprint:
    """Raises GoneError for one that has ended and is not reaped, OSError for none."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    if "VmRSS" not in fields:
        raise GoneError
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Footprint(int(fields["VmRSS"].split()[0]) * 1024, descriptors, int(fields["Threads"]))


def tcp_ports(pid: int) -> set[int]:
    """The local ports of the process's IPv4 connections, Linux alone."""
    links = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    rows = (line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:])
    return {int(row[1].split(":")[1], 16) for row in rows if f"socket:[{row[9]}]" in links}


@dataclass
class Child:
    """Any other function as a process of the same kind; `first` is what it sends once it is ready."""

    target: Callable[..., None]
    arguments: tuple[Any, ...]
    first: Any = field(init=False)

    def __post_init__(self) -> None:
        self._pipe, theirs = _context.Pipe()
        self.process = _context.Process(target=self.target, args=(theirs, *self.arguments), daemon=True)
        self.process.start()
        theirs.close()
        if not self._pipe.poll(20.0):
            raise GoneError(f"{self.target.__name__} did not start")
        self.first = self._pipe.recv()

    def end(self) -> None:
        self.process.kill()
        self.process.join(10)
        self.process.close()
        self._pipe.close()
