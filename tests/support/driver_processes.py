"""driver.py as processes of their own: their lines as they come, and what they leave behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import driver
from relay.adapters.local.process_tree import Process, children, descendants, end_processes, is_running

ROOT = Path(driver.__file__).parent
DRIVER = [sys.executable, str(ROOT / "driver.py")]
# Two busy cores may take a minute for a Ray and its workers.
END_S = 100.0
RAY = str(Path(sys.executable).parent / "ray")
NODE_OPTIONS = ("--block", "--disable-usage-stats", "--object-store-memory=100000000")


class Command:
    """A driver.py under way: its lines as they come, and every process below it that was ever seen."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.seen: set[Process] = set()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def read_until(self, pattern: str) -> str:
        """The first line from here on that matches; fails if the output ends before."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if re.search(pattern, line):
                return line
        raise AssertionError(f"no {pattern!r} in:\n" + "\n".join(self.lines))

    def end(self) -> int:
        """Its exit code, once it has ended by itself."""
        assert self.process.stdout is not None
        self.lines += [line.rstrip() for line in self.process.stdout]
        code = self.process.wait(END_S)
        self._over.set()
        self._watcher.join()
        return code

    @property
    def left(self) -> set[Process]:
        return {process for process in self.seen if is_running(process)}

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.seen |= descendants(children(self.process.pid))


@contextmanager
def started(*args: str, home: Path, cwd: Path | None = None, **more: str) -> Iterator[Command]:
    """`home` holds its state and scratch files, `cwd` its driver.py if it is another; `more` is its
    environment's."""
    environ = {**os.environ, "XDG_STATE_HOME": str(home / "state"), "TMPDIR": str(home), **more}
    with subprocess.Popen(
        [sys.executable, str((cwd or ROOT) / "driver.py"), *args],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ, cwd=cwd,
    ) as process:  # fmt: skip
        command = Command(process)
        try:
            yield command
        finally:
            process.kill()
            command.end()


def ask(*args: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DRIVER, *args], capture_output=True, text=True, timeout=END_S, check=False,
        env={**os.environ, "XDG_STATE_HOME": str(home / "state"), **environ},
    )  # fmt: skip


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def node(environ: dict[str, str], log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """One node of Ray in the foreground; it ends with all its processes."""
    before = children(os.getpid())
    with log.open("w") as out:
        one = subprocess.Popen(command, env=environ, cwd="/", stdout=out, stderr=out, start_new_session=True)
        try:
            yield one
        finally:
            everything = descendants(children(os.getpid()) - before)
            one.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                one.wait(30)
            end_processes(everything, 5.0)
            one.wait(5)
