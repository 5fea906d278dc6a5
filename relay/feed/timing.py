"""How long the reading side waits before it doubts a connection."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedTiming:
    """All in seconds; a running relay uses the defaults."""

    subscribed_s: float = 5.0
    """From a handshake to the first event: the exchange has to look up the stream first."""
    successor_data_s: float = 60.0
    """From a successor's handshake to its first event: the slowest periodic streams send every few
    seconds."""
    align_s: float = 10.0
    """From a successor's first event to the alignment, where the silence limit of the stream is not
    longer."""
    min_probe_s: float = 2.0
    max_probe_s: float = 10.0
    """How long a probe connection listens before its silence counts: the silence limit, within these
    bounds."""
    max_pause_s: float = 10.0
    """How long reading may pause before the connection is closed. Binance does not document whether it drops
    messages for a client that stops reading; with a new connection any loss shows as a gap."""


DEFAULT_TIMING = FeedTiming()
