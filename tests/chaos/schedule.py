"""A random schedule of faults that is a pure function of its seed, so that it can be played again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random

# One fault begins about so often, and so many are under way at a time at most.
EVERY_S = 3.0
AT_ONCE = 4
# A part of the relay is left alone for so long after a fault, or it would never be seen to recover.
RESPITE_S = 2.0
# Parts that there is one of.
NATS, WAY, EXCHANGE, SOCKETS, REST = "NATS", "way to NATS", "exchange", "sockets", "REST"
POOL, CONTROLLER, CLOCK = "pool", "controller", "clock"


@dataclass(frozen=True)
class Kind:
    """`row` is that of the fault table. `part` is what it concerns; empty means one of the streams. It lasts
    from `least_s` to `most_s`, or is done at once."""

    name: str
    row: int
    part: str = ""
    least_s: float = 0.0
    most_s: float = 0.0


KINDS = (
    Kind("stream killed", 1),
    Kind("stream stopped", 3, "", 1.0, 8.0),
    Kind("publisher killed", 4, POOL),
    Kind("all publishers killed", 5, POOL),
    Kind("publisher stopped", 6, POOL, 1.0, 6.0),
    Kind("NATS restarted", 11, NATS),
    Kind("NATS down", 12, NATS, 2.0, 12.0),
    Kind("NATS stopped", 13, NATS, 1.0, 8.0),
    Kind("slow way to NATS", 14, WAY, 3.0, 8.0),
    Kind("answers of NATS lost", 15, WAY, 2.0, 5.0),
    Kind("publisher cut off", 17, WAY, 2.0, 6.0),
    Kind("JetStream stream full", 18, NATS, 2.0, 6.0),
    Kind("sockets reset", 21, SOCKETS),
    Kind("exchange half open", 22, SOCKETS, 3.0, 8.0),
    Kind("stream silent", 23),
    Kind("closed, TCP left open", 24, SOCKETS),
    Kind("broken frames", 25),
    Kind("shutdown announced", 29, SOCKETS, 3.0, 3.0),
    Kind("connections refused", 30, EXCHANGE, 3.0, 10.0),
    Kind("REST refused", 30, REST, 3.0, 10.0),
    Kind("clock set ahead", 34, CLOCK),
    Kind("flood", 36, "", 2.0, 5.0),
    Kind("publishers scaled", 37, POOL),
    Kind("configuration changed", 38),
    Kind("controller replaced", 38, CONTROLLER),
)


@dataclass(frozen=True)
class Planned:
    """`target` is a stream where the fault concerns one."""

    at_s: float
    for_s: float
    kind: Kind
    target: str
    # For whatever the fault still has to choose.
    dice: int

    @property
    def end_s(self) -> float:
        return self.at_s + self.for_s

    def __str__(self) -> str:
        lasts = f" for {self.for_s:.1f} s" if self.for_s else ""
        about = f" ({self.target})" if self.target else ""
        return f"at {self.at_s:.1f} s{lasts}: {self.kind.name}{about}, row {self.kind.row}"


def plan(seed: int, seconds: float, streams: Sequence[str]) -> tuple[Planned, ...]:
    """In the order of their beginnings; all are over after `seconds`."""
    return tuple(_plan(Random(seed), seconds, streams))


def _plan(random: Random, seconds: float, streams: Sequence[str]) -> Iterator[Planned]:
    under_way: list[Planned] = []
    # Each kind once before any comes again.
    bag: list[Kind] = []
    at_s = random.expovariate(1 / EVERY_S)
    while at_s < seconds:
        under_way = [one for one in under_way if one.end_s + RESPITE_S > at_s]
        bag = bag or random.sample(KINDS, len(KINDS))
        drawn = _drawn(random, bag, _taken(under_way), streams)
        if drawn is not None and len(under_way) < AT_ONCE:
            kind, target = drawn
            for_s = min(random.uniform(kind.least_s, kind.most_s), seconds - at_s)
            planned = Planned(at_s, for_s, kind, target, random.randrange(1 << 30))
            bag.remove(kind)
            under_way.append(planned)
            yield planned
        at_s += random.expovariate(1 / EVERY_S)


def _taken(under_way: Collection[Planned]) -> set[str]:
    return {one.kind.part or one.target for one in under_way}


def _drawn(
    random: Random, bag: Sequence[Kind], taken: Collection[str], streams: Sequence[str]
) -> tuple[Kind, str] | None:
    """The first kind in the bag whose part is free."""
    free = [name for name in streams if name not in taken]
    for kind in bag:
        if kind.part and kind.part not in taken:
            return kind, ""
        if not kind.part and free:
            return kind, random.choice(free)
    return None
