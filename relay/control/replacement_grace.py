"""How much longer than usual an actor that does not answer is waited for: pure.

On a machine that is short of CPU an actor answers late and still does its work. To replace it then costs what
the exchange sends meanwhile: 177,000 events in the case that was seen, of a stream in a flood. So two things
excuse it: a publisher that hears from it, and silence all around.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from relay.model.actors import ActorId, Role, Silence
from relay.model.stats import PublisherStats
from relay.ports import Observation

# Its events arrive. One that answers nothing for so long takes no orders either.
STILL_PUBLISHING_GRACE_S = 60.0
# Most actors are mute: their node stands still or has no time, and replacements would have none either.
CROWD_S = 10.0
CROWD_AT_LEAST = 3


class ReplacementGrace(NamedTuple):
    """Of one look at all actors. `lively` are the epochs of the streams from which events came."""

    lively: Mapping[str, int]
    crowd: bool

    def limit_s(self, actor: ActorId, epoch: int | None) -> float:
        """For how long in all they hold for a mute actor; `epoch` is what a stream said last."""
        if actor.role is not Role.PUBLISHER and epoch and self.lively.get(actor.key) == epoch:
            return STILL_PUBLISHING_GRACE_S
        return CROWD_S if self.crowd else 0.0


def excuses(looks: Mapping[ActorId, Observation]) -> ReplacementGrace:
    mute = sum(look is Silence.MUTE for look in looks.values())
    if not mute:
        return ReplacementGrace({}, crowd=False)
    lively: dict[str, int] = {}
    for look in looks.values():
        if isinstance(look, PublisherStats):
            lively.update(look.lively)
    return ReplacementGrace(lively, crowd=mute >= CROWD_AT_LEAST and 2 * mute > len(looks))
