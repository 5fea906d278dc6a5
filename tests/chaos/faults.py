"""How each kind of the schedule is done to a running rig."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import Random

from actors.controller.actor import Controller
from relay.model.actors import ActorId, Role
from tests.chaos.clock import WallClock
from tests.chaos.processes import GoneError, MuteError, Seams
from tests.chaos.proxy import Bandwidth, Timeout, Way
from tests.chaos.rig import STREAMS, Rig, never, publisher, stream
from tests.chaos.schedule import Planned
from tests.support.polling import until

RATE_PER_S = 50.0
HOUR_S = 3600.0
# Publishers that the schedule may ask for; each has a name of its own once, as they come and go.
MOST_PUBLISHERS, NAMES = 4, 400

Undo = Callable[[], object]


class NotNowError(Exception):
    """What the fault was to hit is not there at the moment."""


class Faults:
    """`begin` returns what ends a fault, if it lasts."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.clock = WallClock(rig.directory / "clock")
        self._shards: dict[str, dict[str, object]] = {name: {"stream": name} for name in STREAMS}
        self._do: dict[str, Callable[[Planned, Random], Undo | None]] = {
            "stream killed": self._kill_stream,
            "stream stopped": self._stop_stream,
            "publisher killed": self._kill_publisher,
            "all publishers killed": self._kill_publishers,
            "publisher stopped": self._stop_publisher,
            "NATS restarted": self._restart_nats,
            "NATS down": self._kill_nats,
            "NATS stopped": self._stop_nats,
            "slow way to NATS": self._slow_way,
            "answers of NATS lost": self._lose_answers,
            "publisher cut off": self._cut_off,
            "JetStream stream full": self._fill,
            "sockets reset": self._reset_sockets,
            "exchange half open": self._half_open,
            "stream silent": self._silence,
            "closed, TCP left open": self._linger,
            "broken frames": self._break_frames,
            "shutdown announced": self._shut_down,
            "connections refused": self._refuse,
            "REST refused": self._refuse_rest,
            "clock set ahead": self._set_clock,
            "flood": self._flood,
            "publishers scaled": self._scale,
            "configuration changed": self._change,
            "controller replaced": self._replace_controller,
        }

    def start(self) -> None:
        names = [publisher(f"p{number}") for number in range(NAMES)]
        for actor in (*map(stream, STREAMS), *names):
            seams = self.rig.cluster.seams.get(actor, Seams())
            self.rig.cluster.seams[actor] = replace(seams, clock=self.clock.path)
        self.rig.start(
            rate_per_s=RATE_PER_S,
            proxied=["p0", "p1"],
            proxied_exchange=True,
            config={"publishers": {"max": MOST_PUBLISHERS}},
            exchange={"clock": self.clock.path},
        )

    def begin(self, planned: Planned) -> Undo | None:
        """Raises NotNowError, GoneError, MuteError or ClusterError if it cannot be done at the moment."""
        return self._do[planned.kind.name](planned, Random(planned.dice))

    # Processes

    def _kill_stream(self, planned: Planned, random: Random) -> None:
        self._kill(stream(planned.target))

    def _kill(self, actor: ActorId) -> None:
        try:
            self.rig.kill(actor)
        except KeyError:
            raise MuteError from None

    def _stop_stream(self, planned: Planned, random: Random) -> Undo:
        return self._stop(stream(planned.target))

    def _stop(self, actor: ActorId) -> Undo:
        process = self.rig.stop(actor)

        def wake() -> None:
            # The controller may have ended it meanwhile.
            with suppress(ProcessLookupError):
                self.rig.wake(process)

        return wake

    def _publishers(self) -> list[ActorId]:
        found = [actor for actor in self.rig.cluster.actors() if actor.role is Role.PUBLISHER]
        return sorted(found, key=lambda actor: actor.key)

    def _a_publisher(self, random: Random) -> ActorId:
        found = self._publishers()
        if not found:
            raise NotNowError
        return random.choice(found)

    def _kill_publisher(self, planned: Planned, random: Random) -> None:
        self._kill(self._a_publisher(random))

    def _kill_publishers(self, planned: Planned, random: Random) -> None:
        for actor in self._publishers():
            with suppress(GoneError):
                self._kill(actor)

    def _stop_publisher(self, planned: Planned, random: Random) -> Undo:
        return self._stop(self._a_publisher(random))

    def _replace_controller(self, planned: Planned, random: Random) -> None:
        """As after a kill of it: the next one knows what is written down, and nothing else."""
        self.rig.controller.stop()
        self.rig.controller = Controller(self.rig.cluster, self.rig.cluster.host, end=never)
        until(self.rig.status, "an observation by the next controller")

    def _scale(self, planned: Planned, random: Random) -> None:
        self.rig.controller.scale(random.randint(1, MOST_PUBLISHERS), "the schedule")

    def _change(self, planned: Planned, random: Random) -> None:
        """The stream is drained and made anew, the others are not touched."""
        self._shards[planned.target]["queue"] = {"max_messages": random.randint(500, 5000)}
        written = {**self.rig.written, "shards": list(self._shards.values())}
        self.rig.configure([], written)
        assert self.rig.controller.apply(self.rig.config), "nothing was changed"

    # NATS

    def _restart_nats(self, planned: Planned, random: Random) -> None:
        self.rig.nats.restart()

    def _kill_nats(self, planned: Planned, random: Random) -> Undo:
        self.rig.nats.kill()
        return self.rig.nats.start

    def _stop_nats(self, planned: Planned, random: Random) -> Undo:
        pid = self.rig.nats.pid
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)

    def _slow_way(self, planned: Planned, random: Random) -> Undo:
        proxy = self.rig.nats_proxies[random.choice(["p0", "p1"])]
        proxy.add(Way.UP, Bandwidth(bytes_per_s=30_000.0))
        return lambda: proxy.lift(Way.UP, Bandwidth)

    def _lose_answers(self, planned: Planned, random: Random) -> Undo:
        proxy = self.rig.nats_proxies[random.choice(["p0", "p1"])]
        proxy.add(Way.DOWN, Timeout())
        return lambda: proxy.lift(Way.DOWN, Timeout)

    def _cut_off(self, planned: Planned, random: Random) -> Undo:
        proxy = self.rig.nats_proxies[random.choice(["p0", "p1"])]
        for way in Way:
            proxy.add(way, Timeout())
        return lambda: [proxy.lift(way, Timeout) for way in Way]

    def _fill(self, planned: Planned, random: Random) -> Undo:
        name = random.choice([spec.jetstream_name for spec in self.rig.specs().values()])
        config = self.rig.api(f"STREAM.INFO.{name}")["config"]
        self.rig.api(f"STREAM.UPDATE.{name}", config | {"discard": "new", "max_msgs": 50})
        return lambda: self.rig.api(f"STREAM.UPDATE.{name}", config)

    # The exchange

    def _reset_sockets(self, planned: Planned, random: Random) -> None:
        self.rig.exchange.act("close", code=1006)

    def _half_open(self, planned: Planned, random: Random) -> Undo:
        proxy = self.rig.exchange_proxy
        assert proxy is not None
        proxy.add(Way.DOWN, Timeout())
        return lambda: proxy.lift(Way.DOWN, Timeout)

    def _silence(self, planned: Planned, random: Random) -> None:
        """Of its present sockets, for good: a socket that speaks again would hide what it kept back."""
        self.rig.exchange.act("silence", stream=planned.target)

    def _linger(self, planned: Planned, random: Random) -> None:
        self.rig.exchange.act("close", code=1001, linger=1)

    def _break_frames(self, planned: Planned, random: Random) -> None:
        for payload in ("{", '{"e":"trade"', "[1,2", "\\u0000", '"text"'):
            self.rig.exchange.act("inject", stream=planned.target, payload=payload)

    def _shut_down(self, planned: Planned, random: Random) -> Undo:
        self.rig.exchange.act("shutdown", close_after_s=2.0)
        return lambda: None

    def _refuse(self, planned: Planned, random: Random) -> Undo:
        self.rig.exchange.act("refuse", how=random.choice(["503", "hang", "reset"]))
        self.rig.exchange.act("close", code=1006)
        return lambda: self.rig.exchange.act("accept")

    def _refuse_rest(self, planned: Planned, random: Random) -> Undo:
        self.rig.exchange.act("refuse-rest", how=random.choice(["503", "429"]), retry_after_s=2)
        return lambda: self.rig.exchange.act("accept-rest")

    def _set_clock(self, planned: Planned, random: Random) -> None:
        self.clock.step(HOUR_S)

    def _flood(self, planned: Planned, random: Random) -> Undo:
        self.rig.exchange.flood(planned.target, 40 * RATE_PER_S)
        return lambda: self.rig.exchange.calm(planned.target)
