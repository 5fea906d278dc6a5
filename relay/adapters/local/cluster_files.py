"""How other terminals find a Ray that we started: a file for each, locked while its owner lives."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from relay.adapters.local.process_tree import end_processes, name_of, users_of

RUN_PREFIX = "sluice-"
# Of the names of Ray's processes, unlike those of a pager that shows its logs.
RAY_PREFIX = "ray"


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """`run_directory` belongs to the cluster alone and goes with it. On a cluster that is not `shared`, such
    as a demo's, commands may look and scale, but `run` starts its own."""

    address: str
    token_path: str
    dashboard_url: str
    run_directory: str
    pid: int
    shared: bool = True


def state_directory(environ: Mapping[str, str]) -> Path:
    if chosen := environ.get("SLUICE_STATE_DIR"):
        return Path(chosen)
    home = environ.get("XDG_STATE_HOME", "")
    return Path(home if home.startswith("/") else Path.home() / ".local" / "state") / "sluice"


class ClusterFile:
    """The announcement of a running cluster. The lock goes with the process, however that ends.

    Next to it is a file with a token, for users who may change the relay over its status page.
    """

    def __init__(self, directory: Path, cluster: LocalCluster) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / f"cluster-{cluster.pid}.json"
        unfinished = self._path.with_suffix(".tmp")
        self._file = unfinished.open("w", encoding="utf-8")
        os.fchmod(self._file.fileno(), 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        json.dump(asdict(cluster), self._file)
        self._file.flush()
        unfinished.rename(self._path)
        self.page_token_path = _token_path(self._path)
        self.page_token_path.unlink(missing_ok=True)
        self.page_token_path.touch(mode=0o600)
        self.page_token_path.write_text(secrets.token_urlsafe(32))

    def remove(self) -> None:
        self.page_token_path.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        self._file.close()


def running_cluster(directory: Path, *, shared: bool = False) -> LocalCluster | None:
    """The one that was started last, or the last of the shared ones. What a dead owner left is removed."""
    for path in sorted(directory.glob("cluster-*.json"), key=_changed_at, reverse=True):
        try:
            with path.open(encoding="utf-8") as file:
                if not _owned(file):
                    _remove_leftovers(path, file)
                    continue
                cluster = LocalCluster(**json.load(file))
                if cluster.shared or not shared:
                    return cluster
        except FileNotFoundError:
            # Its owner ended just now.
            continue
    return None


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _owned(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _token_path(path: Path) -> Path:
    return path.with_suffix(".token")


def _remove_leftovers(path: Path, file: IO[str]) -> None:
    """Ray's daemons end with the driver that started them, but some of their helpers do not."""
    run_directory = Path(json.load(file)["run_directory"])
    if run_directory.name.startswith(RUN_PREFIX):
        left = [one for one in users_of(run_directory) if name_of(one).startswith(RAY_PREFIX)]
        end_processes(left, 0.0)
        shutil.rmtree(run_directory, ignore_errors=True)
    _token_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
