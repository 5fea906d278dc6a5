"""The simulated exchange as a child process, commanded over HTTP and asked what it has sent."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from relay.adapters.local.child_process import start_child, stop_child
from relay.audit.comparison import Sent
from relay.binance.streams import Venue
from relay.errors import FeedError

START_DEADLINE_S = 20.0
STOP_GRACE_S = 3.0
ANSWER_DEADLINE_S = 30.0
_ROOT = Path(__file__).resolve().parents[3]


class SimulatedExchange:
    """Runs from entering to leaving; a failure to start or to answer raises FeedError.

    With `hold` no event is sent before `start_traffic`.
    """

    def __init__(
        self, venue: Venue, log: Path, *, hold: bool = False, rate_scale: float = 1.0, seed: int = 1
    ) -> None:
        self.url = ""
        self._log = log
        self._command = [
            sys.executable, "-m", "simulator", "--port", "0", "--venue", venue.value,
            "--seed", str(seed), "--rate-scale", str(rate_scale),
            *(["--hold"] if hold else []),
        ]  # fmt: skip
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._child = start_child(self._command, stdout=subprocess.PIPE, stderr=log, directory=_ROOT)
        self.url = self._await_url(self._child)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child is not None and self._child.stdout is not None
        stop_child(self._child, STOP_GRACE_S)
        self._child.stdout.close()

    def sent(self) -> dict[str, Sent]:
        return _parsed(self._ask("GET", "sent"))

    def subscribed(self) -> set[str]:
        """The streams that somebody listens to."""
        streams = self._ask("GET", "sent")["streams"]
        return {name for name, stream in streams.items() if stream["subscribers"]}

    def start_traffic(self) -> None:
        self._ask("POST", "start-traffic")

    def flood(self, stream: str, rate_per_s: float) -> None:
        self._ask("POST", "flood", stream=stream, rate=rate_per_s)

    def calm(self, stream: str) -> None:
        self._ask("POST", "calm", stream=stream)

    def stop_traffic(self, within_s: float) -> dict[str, Sent]:
        """What was sent, finally; sockets stay open."""
        return _parsed(self._ask("POST", "stop-traffic", within_s=within_s))

    def _await_url(self, child: subprocess.Popen[bytes]) -> str:
        """It prints its URL on one line when it accepts connections."""
        assert child.stdout is not None
        readable, _, _ = select.select([child.stdout], [], [], START_DEADLINE_S)
        url = child.stdout.readline().decode().strip() if readable else ""
        if not url:
            stop_child(child, STOP_GRACE_S)
            child.stdout.close()
            raise FeedError(f"the simulated exchange did not start: {self._last_words()}")
        return url

    def _ask(self, method: str, what: str, **query: object) -> Any:
        where = urlsplit(self.url)
        assert where.hostname is not None
        connection = HTTPConnection(where.hostname, where.port, timeout=ANSWER_DEADLINE_S)
        try:
            connection.request(method, f"/sim/{what}?{urlencode(query)}")
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, HTTPException, ValueError) as error:
            raise FeedError(f"the simulated exchange does not answer: {error or 'timeout'}") from error
        finally:
            connection.close()
        if response.status != 200:
            raise FeedError(f"the simulated exchange refuses {what}: {answer.get('error', response.status)}")
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def _parsed(report: Mapping[str, Any]) -> dict[str, Sent]:
    return {
        name: Sent(
            events=int(stream["events"]),
            digest=str(stream["digest"]),
            unseen=tuple((int(first), int(last)) for first, last in stream["unseen_ranges"]),
        )
        for name, stream in report["streams"].items()
    }
