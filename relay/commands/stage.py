"""What `demo` and `run` put around a relay on one machine: a nats-server and simulated exchanges."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from relay.config import Config
from relay.embedded import EmbeddedNats
from relay.rehearsal import on_exchange, on_server, venues
from relay.simulator import SimulatedExchange
from relay.streams import Venue

USUAL_NATS_PORT = 4222


def simulate(
    children: ExitStack,
    config: Config,
    directory: Path,
    *,
    rate_scale: float = 1.0,
    hold: bool = False,
) -> tuple[Config, Mapping[Venue, SimulatedExchange]]:
    """The configuration turned to one new exchange for each of its venues, which `children` ends."""
    exchanges = {
        venue: children.enter_context(
            SimulatedExchange(venue, directory / f"exchange-{venue}.log", hold=hold, rate_scale=rate_scale)
        )
        for venue in venues(config)
    }
    return on_exchange(config, {venue: one.url for venue, one in exchanges.items()}), exchanges


def embed_nats(children: ExitStack, config: Config, directory: Path, *, port: int = 0) -> Config:
    """The configuration turned to a new nats-server that keeps its data in `directory`."""
    server = children.enter_context(EmbeddedNats(directory, port=port))
    return on_server(config, server.url)


def usual_port_or_any() -> int:
    """NATS's own port if nobody has it, else 0."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_NATS_PORT))
        except OSError:
            return 0
    return USUAL_NATS_PORT
