"""A child process that is controlled over its stdin and stdout: one JSON object a line."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from relay.adapters.local.child_process import stop_child
from relay.errors import ClusterError

ANSWER_LIMIT_S = 120.0
# The arrivals of some seconds of a recording are one command.
LINE_LIMIT_BYTES = 16 * 1024 * 1024
Command = Callable[..., Awaitable[Any]]
_ROOT = Path(__file__).resolve().parent.parent


class Child:
    """One `python -m` process, which is ready when it has written its first line, `hello`.

    It ends when its stdin closes, so it never outlives its parent. Its errors go to `log`.
    """

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=_ROOT,
                start_new_session=True,
            )
        self.hello: dict[str, Any] = self._answer("start")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str, **arguments: Any) -> Any:
        """Raises ClusterError if the child has ended; its log says why."""
        assert self._process.stdin is not None
        line = json.dumps({"command": command, **arguments}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ClusterError(self._exit_text(command)) from error
        return self._answer(command)

    def check(self) -> None:
        """Raises ClusterError if it has ended."""
        if self._process.poll() is not None:
            raise ClusterError(self._exit_text("work"))

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            stop_child(self._process, 1)
        self._process.stdout.close()

    def _answer(self, command: str) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ClusterError(self._exit_text(command))
        return json.loads(line)

    def _exit_text(self, command: str) -> str:
        words = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return f"{self._process.args!r} ended at {command}: {words[-1] if words else 'without a log line'}"


async def serve_commands(hello: Mapping[str, Any], commands: Mapping[str, Command]) -> None:
    """Write `hello`, then answer commands until stdin closes."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(LINE_LIMIT_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _write_line(hello)
    while line := await reader.readline():
        arguments = json.loads(line)
        _write_line(await commands[arguments.pop("command")](**arguments))


def _write_line(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
