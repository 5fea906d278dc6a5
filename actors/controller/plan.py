"""What operators have asked for, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from relay.control.store import Running, Scaling
from relay.model.stats import Change, StoppedStream


@dataclass(frozen=True, slots=True)
class Plan:
    """The configuration, the number of publishers, stopped streams, and the last changes, oldest first."""

    running: Running
    scaling: Scaling
    stopped: Mapping[str, StoppedStream] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
