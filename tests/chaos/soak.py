"""Plays a schedule of faults over a running rig, and reports which were under way when something broke."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from relay.errors import ClusterError
from relay.model.stats import RelayStatus
from tests.chaos.faults import Faults, NotNowError, Undo
from tests.chaos.processes import GoneError, MuteError, footprint
from tests.chaos.rig import Rig
from tests.chaos.schedule import Planned
from tests.support.oracle import Findings
from tests.support.polling import until

WATCH_EVERY_S = 1.0
# A process has all its sockets and threads by then.
GROWN_UP_S = 5.0
# A fault may show somewhat before it is noticed, and after it is over.
ECHO_S = 5.0


@dataclass
class Played:
    """What became of one planned fault, in monotonic time."""

    planned: Planned
    began: float
    ended: float | None = None

    def overlaps(self, at: float) -> bool:
        return self.began - ECHO_S <= at <= (self.ended or at) + ECHO_S


class Soak:
    """`start`, `play`, `calm_down`, then `findings`; what breaks is reported with the faults of its time."""

    def __init__(self, rig: Rig, schedule: tuple[Planned, ...]) -> None:
        self.rig = rig
        self.schedule = schedule
        self.played: list[Played] = []
        self._faults = Faults(rig)
        self._undo: list[tuple[float, Played, Undo]] = []
        self._began = 0.0
        self._watched_at = 0.0
        self._born: dict[int, float] = {}

    def start(self) -> None:
        self._faults.start()
        self._began = time.monotonic()

    def play(self) -> None:
        for planned in self.schedule:
            self._pass_time(self._began + planned.at_s)
            self._begin(planned)
        self._pass_time(max((due for due, _, _ in self._undo), default=0.0))

    def _begin(self, planned: Planned) -> None:
        played = Played(planned, time.monotonic())
        try:
            undo = self._faults.begin(planned)
        except (NotNowError, GoneError, MuteError, ClusterError) as error:
            print(f"{planned}: not done, {error!r}")
            return
        self.played.append(played)
        print(f"{planned}: done")
        if undo is None:
            played.ended = time.monotonic()
        else:
            self._undo.append((self._began + planned.end_s, played, undo))

    def _pass_time(self, until_at: float) -> None:
        """Ends what is over meanwhile, and checks what has to hold at every moment."""
        while True:
            now = time.monotonic()
            for due, played, undo in [one for one in self._undo if one[0] <= now]:
                self._undo.remove((due, played, undo))
                undo()
                played.ended = time.monotonic()
            if now >= self._watched_at + WATCH_EVERY_S:
                self._watched_at = now
                self._watch(now)
            if now >= until_at:
                return
            time.sleep(min(0.05, until_at - now))

    def _watch(self, now: float) -> None:
        wrong = [key for key, one in self.rig.stats(within_s=0.5).items() if not one.balanced]
        assert not wrong, f"the counts of {wrong} do not balance; {self.under_way(now)}"
        for actor in self.rig.cluster.actors():
            with suppress(GoneError, OSError):
                pid = self.rig.process(actor).pid
                born = self._born.setdefault(pid, now)
                if now - born >= GROWN_UP_S:
                    self.rig.floor.setdefault(pid, footprint(pid))

    def under_way(self, at: float) -> str:
        names = [str(one.planned) for one in self.played if one.overlaps(at)]
        return f"{at - self._began:.1f} s after the start, under way: {'; '.join(names) or 'nothing'}"

    def calm_down(self, within_s: float) -> float:
        """Until the relay is steady again without any fault; returns how long that took."""
        began = time.monotonic()
        last = self.under_way(began)
        until(self._is_steady, f"a steady relay after the last fault, which was {last}", within_s, 0.2)
        return time.monotonic() - began

    def _is_steady(self) -> bool:
        status = self.rig.status()
        return status is not None and _is_steady(status, len(self.rig.specs()))

    def findings(self) -> Findings:
        """Each violation with a known time, with the faults of that time."""
        found = self.rig.findings()
        clock, moments = self._faults.clock, found.moments
        found.violations = [
            f"{text}; {self.under_way(clock.when(moments[text]))}" if text in moments else text
            for text in found.violations
        ]
        return found


def _is_steady(status: RelayStatus, streams: int) -> bool:
    serving = sum(one.connected for one in status.publishers)
    return (
        len(status.streams) == streams
        and all(one.linked and one.state == "live" and one.backlog_count < 50 for one in status.streams)
        and serving == status.scale.actual == status.scale.wanted
        and not (status.unreachable or status.pending)
    )


def effects(played: list[Played]) -> Iterator[str]:
    """How often each kind was done, and its row."""
    counted = Counter((one.planned.kind.row, one.planned.kind.name) for one in played)
    for (row, name), count in sorted(counted.items()):
        yield f"{name} {count}x, row {row}"
