"""Applies a configuration file, such as a mounted ConfigMap, whenever it changes, and reports the rollout."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cli.display.rollout import lines
from cli.display.terminal import Tone
from cli.operator_name import operator_name
from cli.screen import Screen
from relay.config import Config, load_config
from relay.config.yaml_file import MAX_FILE_BYTES
from relay.control.rollout import rollout_status
from relay.errors import ClusterError, ConfigError, UsageError
from relay.model.stats import RelayStatus
from relay.primitives.stable_change import StableChangeDetector

if TYPE_CHECKING:
    from actors.client import RelayClient


class ConfigWatcher:
    """Call `poll` once a second. A wrong file changes nothing.

    `adapt` turns the file's configuration into the one to run, with simulated exchanges and the like. `known`
    is the digest of the file that runs, taken before the file was read.
    """

    def __init__(
        self,
        path: Path,
        known: bytes | None,
        adapt: Callable[[Config], Config],
        cluster: RelayClient,
        screen: Screen,
    ) -> None:
        self._path = path
        self._adapt = adapt
        self._cluster = cluster
        self._screen = screen
        self._file = StableChangeDetector(known)
        self._applied: tuple[RelayStatus, Config] | None = None

    def poll(self) -> None:
        try:
            if self._file.observe(digest(self._path)):
                self._apply()
        except (ConfigError, UsageError) as error:
            text = f"{self._path} has changed and is not applied: {error}; the relay goes on as before"
            self._screen.print_line(text, Tone.BAD)
        except ClusterError as error:
            self._file.forget()
            self._screen.print_line(f"{self._path} is not applied yet: {error}", Tone.WARN)
        # `run` itself reports a controller that does not answer.
        with suppress(ClusterError):
            self._report_rollout()

    def _apply(self) -> None:
        config = self._adapt(load_config(self._path, os.environ))
        before = self._cluster.status()
        found = self._cluster.bring_up(config, f"{operator_name()}, --watch").differences
        if not found:
            self._screen.print_line(f"{self._path} has changed, and comes to the same relay")
            return
        self._applied = before, config
        self._screen.print_line(f"{self._path} has changed and is applied")
        for difference in found:
            self._screen.print_line(f"  {difference}")

    def _report_rollout(self) -> None:
        """Prints the rollout once it is complete; until then the status lines of `run` show the streams."""
        if self._applied is None:
            return
        before, config = self._applied
        found = rollout_status(before, self._cluster.status(), config)
        if not found.waiting:
            self._applied = None
            for line in lines(found):
                self._screen.print_line(f"  {line}")


def digest(path: Path) -> bytes | None:
    """None if it cannot be read. Follows links: the kubelet swaps the one that leads to a ConfigMap."""
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(MAX_FILE_BYTES + 1)).digest()
    except OSError:
        return None
