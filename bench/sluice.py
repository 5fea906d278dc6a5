"""Sluice as its users run it: `driver.py run` on a local Ray that it starts itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import orjson

from bench.procfs import command_line, descendants
from bench.testbed import Testbed
from relay.adapters.local.child_process import stop_child
from relay.binance.streams import Venue, parse_stream
from relay.errors import ClusterError

_DRIVER = Path(__file__).resolve().parent.parent / "driver.py"
_SUBJECT = "binance.{venue}.{symbol}.{channel}"
# `driver.py run` drains for 10 s at most, then Ray takes some seconds to end.
_STOP_LIMIT_S = 30.0
# The old client's variables would override the file, and an address would make the driver join a cluster.
_REMOVED_VARIABLES = (
    "NATS_URL", "NATS_TOPIC", "BINANCE_WS_URL", "BINANCE_STREAMS", "MAX_QUEUE_SIZE", "NUM_MESSAGE_PROCESSORS",
    "RAY_ADDRESS",
)  # fmt: skip


def configuration(testbed: Testbed, delivery: str, more: Mapping[str, Any]) -> str:
    """A shards.yaml; JSON is YAML. `more` replaces sections."""
    return json.dumps(
        {
            "exchange": {"venue": "usdm", "url": testbed.exchange_url},
            "nats": {
                "servers": [testbed.nats_url],
                "delivery": delivery,
                "subject": _SUBJECT,
                "stream": {"max_bytes": "768MiB"},
            },
            "journal": {"directory": str(testbed.directory / "journal")},
            "shards": list(testbed.streams),
            **more,
        }
    )


class RunningSluice:
    """A relay below its driver process; process titles distinguish actors from Ray's daemons."""

    def __init__(self, name: str, testbed: Testbed, driver: subprocess.Popen[bytes], *, stores: bool) -> None:
        self._name = name
        self._testbed = testbed
        self._driver = driver
        self._stores = stores

    @property
    def name(self) -> str:
        return self._name

    def relay(self) -> dict[str, int]:
        return {"driver": self._driver.pid} | self._below(actors=True)

    def daemons(self) -> dict[str, int]:
        return self._below(actors=False)

    def _below(self, *, actors: bool) -> dict[str, int]:
        titles = {pid: command_line(pid) for pid in descendants(self._driver.pid)}
        return {f"{_plain(title)} [{pid}]": pid for pid, title in titles.items() if is_actor(title) == actors}

    def stored(self) -> int | None:
        return asyncio.run(stored(self._testbed.nats_url, self._testbed.streams)) if self._stores else None

    def status(self) -> dict[str, Any]:
        """The relay's own status."""
        done = subprocess.run(
            [sys.executable, _DRIVER, "status", "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_environ(self._testbed),
            check=True,
        )
        found: dict[str, Any] = orjson.loads(done.stdout)
        return found

    def notes(self) -> dict[str, int]:
        return {}

    def check(self) -> None:
        if self._driver.poll() is not None:
            raise ClusterError(
                f"driver.py run ended with {self._driver.returncode}; see {self._testbed.directory}"
            )


def is_actor(title: str) -> bool:
    """By the title of its class until the actor gives itself one; Ray titles its own agents `ray::` too."""
    return title.startswith(("ray::Stream", "ray::Publisher", "ray::Controller"))


def _plain(title: str) -> str:
    """Without the live backlog, and of a daemon the program alone."""
    words = title.split()
    if not title.startswith("ray::"):
        return words[0].rpartition("/")[2] if words else ""
    return " ".join(word for word in words[:2] if "=" not in word)


async def stored(nats_url: str, streams: Sequence[str]) -> int:
    """Events in all JetStream streams of the relay, without its fences."""
    connection = await nats.connect(nats_url)
    try:
        total = 0
        for name in streams:
            spec = parse_stream(Venue.USDM, name)
            subject = spec.subject(_SUBJECT)
            found = await connection.jetstream().stream_info(spec.jetstream_name, subjects_filter=subject)
            total += (found.state.subjects or {}).get(subject, 0)
        return total
    finally:
        await connection.close()


def _environ(testbed: Testbed) -> dict[str, str]:
    """With a state folder of its own, so that the driver does not join a relay that runs here already."""
    own = {"SLUICE_STATE_DIR": str(testbed.directory / "state")}
    return {key: value for key, value in os.environ.items() if key not in _REMOVED_VARIABLES} | own


@contextmanager
def running_sluice(testbed: Testbed, name: str, delivery: str, **more: Any) -> Iterator[RunningSluice]:
    file = testbed.directory / "shards.yaml"
    file.write_text(configuration(testbed, delivery, more), encoding="utf-8")
    with (testbed.directory / "driver.log").open("ab") as log:
        driver = subprocess.Popen(
            [sys.executable, _DRIVER, "run", "-c", file],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environ(testbed),
            start_new_session=True,
        )
    try:
        yield RunningSluice(name, testbed, driver, stores=delivery == "jetstream")
    finally:
        _stop(driver)


def _stop(driver: subprocess.Popen[bytes]) -> None:
    """A driver that does not end in time is killed, and with it what it had started."""
    below = descendants(driver.pid)
    stop_child(driver, _STOP_LIMIT_S)
    if driver.returncode:
        for pid in below:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
