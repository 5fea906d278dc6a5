"""A real Prometheus that finds a local Ray by the file that Ray writes for it."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

DEADLINE_S = 60.0


class Prometheus:
    """On loopback, with its store in `directory`, scraping and judging rules once a second."""

    def __init__(self, directory: Path, targets: Path, rules: str) -> None:
        self._directory = directory
        directory.mkdir()
        (directory / "rules.yaml").write_text(rules, encoding="utf-8")
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(directory / "rules.yaml")],
            "scrape_configs": [
                {"job_name": "ray", "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}]}
            ],
        }
        # JSON is YAML.
        (directory / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._log = (self._directory / "log").open("w")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self._directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._directory / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer; Prometheus' own words where it refuses."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            with refused:
                raise AssertionError(f"{parameters}: {refused.read().decode()}") from None

    def ask(self, expression: str) -> list[float]:
        """The value of each series now."""
        return [float(one["value"][1]) for one in self.get("query", query=expression)["result"]]

    def until(self, expression: str) -> list[float]:
        """Waits until it has a value, and none that is no number."""
        deadline = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        found: list[float] = []
        while not found or any(map(math.isnan, found)):
            assert self._process.poll() is None, (self._directory / "log").read_text()
            assert time.monotonic() < deadline, f"no value: {expression}"
            pause.wait(0.2)
            try:
                found = self.ask(expression)
            except OSError:
                continue
        return found
