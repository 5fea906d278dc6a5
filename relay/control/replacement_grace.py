"""How much longer than usual the controller waits before it replaces an actor that does not answer: pure.

On a machine that is short of CPU an actor answers late and still does its work. Replacing it then loses what
the exchange sends meanwhile: 177,000 events in the case that was measured, of a stream with a very high rate.
So two conditions extend the wait: a publisher still receives the stream's events, or most actors are silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from relay.model.actors import ActorId, Role, Silence
from relay.model.stats import PublisherStats
from relay.ports import Observation

# While a publisher still receives its events. An actor that has not answered for longer than this would not
# follow an instruction either, so it is replaced even then.
STILL_PUBLISHING_GRACE_S = 60.0
# Most actors do not answer: their node is frozen or out of CPU, and replacements would be no faster.
MASS_SILENCE_GRACE_S = 10.0
MASS_SILENCE_AT_LEAST = 3


class ReplacementGrace(NamedTuple):
    """From one observation. `active_streams` gives the epochs of the streams whose events arrive."""

    active_streams: Mapping[str, int]
    mass_silence: bool

    def limit_s(self, actor: ActorId, epoch: int | None) -> float:
        """By how much the wait for this actor is extended in all; `epoch` is what a stream reported last."""
        if actor.role is not Role.PUBLISHER and epoch and self.active_streams.get(actor.key) == epoch:
            return STILL_PUBLISHING_GRACE_S
        return MASS_SILENCE_GRACE_S if self.mass_silence else 0.0


def replacement_grace(observations: Mapping[ActorId, Observation]) -> ReplacementGrace:
    unresponsive = sum(observation is Silence.UNRESPONSIVE for observation in observations.values())
    if not unresponsive:
        return ReplacementGrace({}, mass_silence=False)
    active: dict[str, int] = {}
    for observation in observations.values():
        if isinstance(observation, PublisherStats):
            active.update(observation.lively)
    return ReplacementGrace(
        active, mass_silence=unresponsive >= MASS_SILENCE_AT_LEAST and 2 * unresponsive > len(observations)
    )
