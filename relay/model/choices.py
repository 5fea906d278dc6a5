"""Choices of the configuration that the hot path acts on."""

from __future__ import annotations

from enum import StrEnum


class Overflow(StrEnum):
    """What a stream does when its memory is full; `block` stops reading, for which the exchange hangs up."""

    SPILL = "spill"
    CONFLATE = "conflate"
    DROP_OLDEST = "drop_oldest"
    DROP_NEWEST = "drop_newest"
    BLOCK = "block"


class Delivery(StrEnum):
    JETSTREAM = "jetstream"
    CORE = "core"
