"""Starts the surroundings of a relay on one machine for `demo` and `run`: nats-server and simulated
exchanges.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from relay.adapters.local.nats_server import EmbeddedNats
from relay.adapters.local.simulator_process import SimulatedExchange
from relay.binance.streams import Venue
from relay.config import Config
from relay.config.overrides import venues

DEFAULT_NATS_PORT = 4222


def simulate(
    children: ExitStack,
    config: Config,
    directory: Path,
    *,
    rate_scale: float = 1.0,
    hold: bool = False,
) -> Mapping[Venue, SimulatedExchange]:
    """One new exchange for each of the configuration's venues; leaving `children` ends them."""
    return {
        venue: children.enter_context(
            SimulatedExchange(venue, directory / f"exchange-{venue}.log", hold=hold, rate_scale=rate_scale)
        )
        for venue in venues(config)
    }


def embed_nats(children: ExitStack, directory: Path, *, port: int = 0) -> str:
    """The URL of a new nats-server that keeps its data in `directory`."""
    return children.enter_context(EmbeddedNats(directory, port=port)).url


def default_port_or_any() -> int:
    """NATS's default port if it is free, else 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_NATS_PORT))
        except OSError:
            return 0
    return DEFAULT_NATS_PORT
