"""The controller: takes the commands of operators, and runs the reconcile loop once a second.

These outlive it, in the cluster's key-value store: the configuration, who set the number of publishers, which
streams operators stopped, the last changes, the assignments, and the settings that each actor was made with.
Everything else is observed again, so a controller may be killed at any moment and its next incarnation
continues.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from actors.controller.heartbeat import Beat, HeartbeatSender, beat_now
from actors.controller.jetstream_keeper import Ensure, ensure_now
from actors.controller.page_server import PageSupervisor
from actors.controller.plan import Plan
from actors.controller.reconcile_loop import TICK_S, ReconcileLoop
from relay.adapters.nats.login import login_proofs
from relay.config import Config
from relay.config.diff import differences, unchanged_streams
from relay.control.operator_actions import (
    apply_summary,
    display_name,
    publisher_name,
    resolve_stream,
    still_stopped,
    with_change,
)
from relay.control.store import ControlStore, Running, Scaling
from relay.errors import ClusterError, ConfigError, SluiceError, UsageError
from relay.model.stats import TAKE_DOWN_GRACE_S, Health, RelayStatus, ScaleStatus, StoppedStream, TakenDown
from relay.observability.history import History
from relay.ports import Cluster, Host

_log = logging.getLogger(__name__)

RECOVERY_S = 10.0
# An observation takes at most a second when all is well.
SHOW_BLIND_AFTER_S = 5.0
BLIND_TEXT = "the controller has not seen the relay for {:.0f} s, these figures are old; does Ray's head run?"


class Controller:
    """Its methods may be called from any thread; one thread of its own does the work."""

    def __init__(
        self,
        cluster: Cluster,
        host: Host,
        *,
        ensure: Ensure = ensure_now,
        beat: Beat = beat_now,
        end: Callable[[int], object] = os._exit,
        blind_s: float = SHOW_BLIND_AFTER_S,
    ) -> None:
        self._store = ControlStore(cluster)
        self._host = host
        self._started_at = time.monotonic()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._recovered = threading.Event()
        self._plan: Plan | None = None
        self._drain_s: float | None = None
        self._loop = ReconcileLoop(cluster, host, self._store, ensure)
        self._history = History(str(time.time_ns()))
        self._history_lock = threading.Lock()
        self._own_token_file: Path | None = None
        self._page = PageSupervisor(self)
        self._heartbeat = HeartbeatSender(beat)
        self._end = end
        self._blind_s = blind_s
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return "Controller"

    def status(self) -> RelayStatus:
        """The status: at most a second old, or marked with its age.

        Raises ClusterError before the relay was observed for the first time.
        """
        status = self._loop.report.status
        if status is None:
            raise ClusterError("the controller has just started and has not observed the relay yet")
        now = time.monotonic()
        blind_s = self._loop.report.blind_s(now)
        blind = BLIND_TEXT.format(blind_s) if blind_s >= self._blind_s else ""
        # Several of these report that NATS is unreachable, in the same words: once is enough.
        found = (blind, *status.problems, self._page.problem, self._heartbeat.problem)
        problems = tuple(dict.fromkeys(filter(None, found)))
        return replace(
            status,
            uptime_s=now - self._started_at,
            problems=problems,
            health=self._loop.report.health(now),
            page=self._page.status,
        )

    def health(self) -> Health:
        return self._loop.report.health(time.monotonic())

    def history(self, after: int) -> bytes:
        """What the page's charts need, as JSON: see relay.observability.history."""
        with self._history_lock:
            return self._history.encoded(after)

    def scale(self, count: int | None, who: str) -> ScaleStatus:
        """None lets the load decide again. Raises UsageError for a number that is not possible."""
        with self._changing() as plan:
            streams = len(plan.running.config.shards)
            if count is not None and not 1 <= count <= streams:
                raise UsageError(f"{count} publishers for {streams} streams; take 1 to {streams}, or auto")
            scaling = Scaling(count, display_name(who), time.time_ns())
            self._store.save_scaling(scaling)
            what = "publishers left to the load" if count is None else f"publishers set to {count}"
            self._plan = plan = self._with_change(replace(plan, scaling=scaling), who, what)
        return self._loop.pool.status(plan)

    def drain_publisher(self, name: str, who: str) -> None:
        """Moves its streams to others and ends it; it is replaced if the wanted number requires it."""
        with self._changing() as plan:
            name = publisher_name(name, [one.publisher for one in self.status().publishers])
            self._loop.retire(name)
            self._plan = self._with_change(plan, who, f"publisher {name} drained")

    def stop_stream(self, stream: str, who: str) -> str:
        """The stream stops reading, publishes its backlog and stays stopped. Returns its key."""
        with self._changing() as plan:
            key = resolve_stream(stream, [one.spec.key for one in plan.running.config.streams])
            if key not in plan.stopped:
                stop = StoppedStream(key=key, who=display_name(who), at_ns=time.time_ns())
                self._plan = self._with_stopped(plan, {**plan.stopped, key: stop}, who, f"{key} stopped")
        return key

    def resume_stream(self, stream: str, who: str) -> str:
        with self._changing() as plan:
            key = resolve_stream(stream, [one.spec.key for one in plan.running.config.streams])
            if key in plan.stopped:
                rest = {other: stop for other, stop in plan.stopped.items() if other != key}
                self._plan = self._with_stopped(plan, rest, who, f"{key} resumed")
        return key

    def apply(
        self, config: Config, proofs: Mapping[str, str] | None = None, who: str = ""
    ) -> tuple[str, ...]:
        """The differences from before, as sentences; empty when there is nothing to do.

        Changed streams are drained, removed and created again; all others continue, or stay stopped. `proofs`
        are of the secrets on the caller's machine: raises ConfigError, and changes nothing, unless the
        secrets are the same here.
        """
        self._wait_recovered()
        if proofs is not None:
            self._check_secrets(config, proofs)
        with self._lock:
            before = self._plan
            if self._drain_s is not None:
                raise ClusterError("the relay is being taken down; try again in a while")
            found = differences(before.running.config, config) if before else ()
            if before is not None and not found:
                return ()
            plan = self._changed_plan(before, config)
            what = apply_summary(found) if before else f"relay started with {len(config.shards)} streams"
            self._plan = self._with_change(plan, who, what)
        self._wake.set()
        for sentence in found:
            _log.info("configuration: %s", sentence)
        return found

    def drain(self, deadline_s: float) -> TakenDown:
        """Drain and remove every stream, then every publisher; afterwards nothing is started any more."""
        with self._lock:
            self._store.forget_running()
            self._drain_s = deadline_s
        self._wake.set()
        self._loop.ended.wait(deadline_s + TAKE_DOWN_GRACE_S)
        return self._loop.taken_down()

    def stop(self) -> None:
        """For a controller that runs without Ray; Ray ends the process instead."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        self._page.close()
        self._heartbeat.close()
        self._loop.close()

    def _check_secrets(self, config: Config, proofs: Mapping[str, str]) -> None:
        for path, proof in login_proofs(config.nats, self._host.secret).items():
            if proofs.get(path) != proof:
                problem = "its environment variable has another value where the relay runs"
                raise ConfigError(path, problem, "set it there and restart Ray, or name a file instead")

    @contextmanager
    def _changing(self) -> Iterator[Plan]:
        """Gives the plan, for one change at a time; the loop acts on the change at once."""
        self._wait_recovered()
        with self._lock:
            if self._plan is None:
                raise ClusterError("the controller has no configuration yet")
            if self._drain_s is not None:
                raise ClusterError("the relay is being taken down; nothing can be changed any more")
            yield self._plan
        self._wake.set()

    def _with_change(self, plan: Plan, who: str, what: str) -> Plan:
        changes = with_change(plan.changes, who, what, time.time_ns())
        self._store.save_changes(changes)
        _log.info("%s, by %s", changes[-1].what, changes[-1].who)
        return replace(plan, changes=changes)

    def _with_stopped(self, plan: Plan, stopped: Mapping[str, StoppedStream], who: str, what: str) -> Plan:
        self._store.save_stopped(stopped)
        return self._with_change(replace(plan, stopped=stopped), who, what)

    def _changed_plan(self, before: Plan | None, config: Config) -> Plan:
        """A changed number of publishers in the configuration overrides the one that an operator set."""
        running = Running(before.running.version + 1 if before else 1, config)
        if before is not None and before.running.config.publishers.scale == config.publishers.scale:
            scaling = before.scaling
        else:
            scaling = _configured_scaling(config)
        stopped: Mapping[str, StoppedStream] = {}
        if before is not None and before.stopped:
            stopped = still_stopped(before.stopped, unchanged_streams(before.running.config, config))
            self._store.save_stopped(stopped)
        self._store.save_scaling(scaling)
        self._store.save_running(running)
        return Plan(running, scaling, stopped, before.changes if before else ())

    def _recover(self) -> None:
        running = self._store.running()
        if running is not None:
            scaling = self._store.scaling() or _configured_scaling(running.config)
            self._plan = Plan(running, scaling, self._store.stopped(), self._store.changes())
        self._own_token_file = self._store.page_token_file()
        self._recovered.set()

    def _wait_recovered(self) -> None:
        """Nothing may be changed before the stored state has been read."""
        if not self._recovered.wait(RECOVERY_S):
            raise ClusterError("the controller cannot read what its predecessor left; try again in a while")

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                self._wake.wait(self._once())
        except Exception as error:  # noqa: BLE001 - a controller without its loop would answer and do nothing
            _log.critical("the controller failed; its process ends", exc_info=error)
            self._end(1)

    def _once(self) -> float:
        """One tick; returns how long to wait for the next one."""
        began, period_s = time.monotonic(), TICK_S
        try:
            if not self._recovered.is_set():
                self._recover()
            if self._drain_s is not None:
                period_s = self._loop.close_down(self._drain_s, began)
            elif self._plan is not None:
                period_s = self._loop.bring_towards(self._plan, began)
                self._keep_informed(self._plan.running.config)
        except SluiceError as error:
            _log.warning("observing the relay failed: %s", error)
            self._loop.report.failed(error)
        return max(0.0, began + period_s - time.monotonic())

    def _keep_informed(self, config: Config) -> None:
        """Serve the page where the configuration wants it, and update its history and the heartbeat."""
        token_file = config.page.token_file or self._own_token_file
        now = time.monotonic()
        self._page.keep(config.page, token_file, now)
        status = self.status()
        self._heartbeat.tick(config.nats, status, now)
        with self._history_lock:
            self._history.update(status, time.time_ns())


def _configured_scaling(config: Config) -> Scaling:
    count = config.publishers.scale
    return Scaling(None if count == "auto" else int(count), "the configuration", time.time_ns())
