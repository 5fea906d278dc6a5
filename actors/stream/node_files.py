"""Where a stream keeps what belongs to its node: the journal, the epochs in use, the connect budget."""

from __future__ import annotations

from pathlib import Path

from actors.stream.connect_gate import ConnectGate
from relay.binance.connect_budget import BudgetClaim
from relay.binance.connect_budget_file import ConnectBudgetFile
from relay.config import StreamSettings
from relay.ports import Host

# Below the socket directory: the epochs in use of streams without a journal.
EPOCHS = "epochs"


def journal_directory(settings: StreamSettings) -> Path:
    return settings.journal_directory / settings.spec.key.replace(":", "_").replace("/", "_")


def epoch_directory(settings: StreamSettings, host: Host) -> Path:
    """The directory that says which epochs are in use, for a stream with a journal or without one."""
    directory = journal_directory(settings)
    return directory if settings.journal else host.socket_directory / EPOCHS / directory.name


def connect_gate(settings: StreamSettings, host: Host, name: str) -> ConnectGate:
    """Each connection that a stream keeps counts under a `name` of its own."""
    claim = BudgetClaim(
        stream=name,
        total=settings.connects_per_5min,
        streams=settings.streams,
        shared=settings.nodes_share_address,
    )
    return ConnectGate(ConnectBudgetFile(host.socket_directory), claim)
