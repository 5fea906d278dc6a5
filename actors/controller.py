"""The controller: once a second it looks, decides by pure functions, and lets the cluster act.

Durable, in the cluster's key-value store: the configuration, who set the number of publishers, assignments
and the settings that each actor was made with. Everything else is looked up again: a controller may be killed
at any moment and its next incarnation goes on. Events never pass through here, and the relay runs on without
it; what stops meanwhile is replacing, scaling and moving.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from actors.jetstream_keeper import Ensure, ensure_now
from actors.pool import Plan
from actors.tick import TICK_S, Tick
from relay.changes import differences
from relay.config import Config
from relay.errors import ClusterError, ConfigError, SluiceError, UsageError
from relay.facts import Facts, Running, Scaling
from relay.nats_login import login_proofs
from relay.ports import Cluster, Host
from relay.stats import TAKE_DOWN_GRACE_S, RelayStatus, ScaleStatus, TakenDown

_log = logging.getLogger(__name__)

RECOVERY_S = 10.0


class Controller:
    """Its methods may be called from any thread; one thread of its own does all the work."""

    def __init__(
        self,
        cluster: Cluster,
        host: Host,
        *,
        ensure: Ensure = ensure_now,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._facts = Facts(cluster)
        self._host = host
        self._started_at = time.monotonic()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._recovered = threading.Event()
        self._plan: Plan | None = None
        self._drain_s: float | None = None
        self._tick = Tick(cluster, host, self._facts, ensure)
        self._end = end
        self._thread = threading.Thread(target=self._run, name="controller", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return "Controller"

    def status(self) -> RelayStatus:
        """At most a second old. Raises ClusterError before the first configuration came and was looked at."""
        status = self._tick.status
        if status is None:
            raise ClusterError("the controller has just started and has not looked at the relay yet")
        return replace(status, uptime_s=time.monotonic() - self._started_at)

    def scale(self, count: int | None, who: str) -> ScaleStatus:
        """None lets the load decide again. Raises UsageError for a number that cannot be."""
        self._wait_recovered()
        with self._lock:
            plan = self._needed_plan()
            streams = len(plan.running.config.shards)
            if count is not None and not 1 <= count <= streams:
                raise UsageError(f"{count} publishers for {streams} streams; take 1 to {streams}, or auto")
            scaling = Scaling(count, who, time.time_ns())
            self._facts.save_scaling(scaling)
            self._plan = replace(plan, scaling=scaling)
        self._wake.set()
        _log.info("publishers set to %s by %s", "auto" if count is None else count, who)
        return self._tick.pool.status(self._plan)

    def apply(self, config: Config, proofs: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """The differences from before, as sentences; empty when there is nothing to do.

        What changed is drained, removed and made anew; everything else goes on untouched. `proofs` are of the
        secrets where the caller runs: raises ConfigError, and changes nothing, unless they are the same here.
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
            self._plan = self._changed_plan(before, config)
        self._wake.set()
        for sentence in found:
            _log.info("configuration: %s", sentence)
        return found

    def drain(self, deadline_s: float) -> TakenDown:
        """Drain and remove every stream, then every publisher; afterwards nothing is started any more."""
        with self._lock:
            self._facts.forget_running()
            self._drain_s = deadline_s
        self._wake.set()
        self._tick.ended.wait(deadline_s + TAKE_DOWN_GRACE_S)
        return self._tick.taken_down()

    def stop(self) -> None:
        """For a plain instance; Ray ends the process instead."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        self._tick.close()

    def _check_secrets(self, config: Config, proofs: Mapping[str, str]) -> None:
        for path, proof in login_proofs(config.nats, self._host.secret).items():
            if proofs.get(path) != proof:
                problem = "its environment variable has another value where the relay runs"
                raise ConfigError(path, problem, "set it there and restart Ray, or name a file instead")

    def _needed_plan(self) -> Plan:
        if self._plan is None:
            raise ClusterError("the controller has no configuration yet")
        return self._plan

    def _changed_plan(self, before: Plan | None, config: Config) -> Plan:
        """A number in the file counts from when it changes; until then the one set by hand stays."""
        running = Running(before.running.version + 1 if before else 1, config)
        if before is not None and before.running.config.publishers.scale == config.publishers.scale:
            scaling = before.scaling
        else:
            scaling = _configured_scaling(config)
        self._facts.save_scaling(scaling)
        self._facts.save_running(running)
        return Plan(running=running, scaling=scaling)

    def _recover(self) -> None:
        running = self._facts.running()
        if running is not None:
            scaling = self._facts.scaling() or _configured_scaling(running.config)
            self._plan = Plan(running=running, scaling=scaling)
        self._recovered.set()

    def _wait_recovered(self) -> None:
        """Nobody changes anything before it is known what there was."""
        if not self._recovered.wait(RECOVERY_S):
            raise ClusterError("the controller cannot read what its predecessor left; try again in a while")

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                self._wake.wait(self._once())
        except Exception as error:  # noqa: BLE001 - half a controller would look alive and do nothing
            _log.critical("the controller failed; its process ends", exc_info=error)
            self._end(1)

    def _once(self) -> float:
        """One tick; returns how long to wait for the next one."""
        began, period_s = time.monotonic(), TICK_S
        try:
            if not self._recovered.is_set():
                self._recover()
            if self._drain_s is not None:
                period_s = self._tick.close_down(self._drain_s, began)
            elif self._plan is not None:
                period_s = self._tick.bring_to(self._plan, began)
        except SluiceError as error:
            _log.warning("a look at the relay failed: %s", error)
            self._tick.failed(error)
        return max(0.0, began + period_s - time.monotonic())


def _configured_scaling(config: Config) -> Scaling:
    count = config.publishers.scale
    return Scaling(None if count == "auto" else int(count), "the configuration", time.time_ns())
