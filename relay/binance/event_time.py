"""When the exchange sent an event; pure.

A process that was stopped or overloaded reads events long after they were sent. A loss that begins after such
an event must begin at the time when it was sent: dated by the time of reading, the loss was too short for 123
of 166,000 missing events in half an hour of faults.
"""

from __future__ import annotations

import orjson

# An older time is not believed: the clocks differ by less, and a process that stops for longer is replaced.
MOST_NS = 600 * 10**9


def event_time_ns(payload: bytes, recv_ns: int) -> int:
    """The event's own time (`E`, in ms) in Unix ns; `recv_ns` where it has none, or a later one."""
    try:
        stamp = orjson.loads(payload).get("E")
    except (orjson.JSONDecodeError, AttributeError):
        return recv_ns
    at_ns = stamp * 1_000_000 if isinstance(stamp, int) else recv_ns
    return at_ns if recv_ns - MOST_NS < at_ns < recv_ns else recv_ns
