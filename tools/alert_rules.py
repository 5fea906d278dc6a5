"""Prints the alert rules of k8s/alerts.yaml as a rules file, for a Prometheus without its operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MANIFEST = Path(__file__).resolve().parents[1] / "k8s" / "alerts.yaml"


def rules() -> list[dict[str, Any]]:
    return [rule for group in _spec()["groups"] for rule in group["rules"]]


def rules_file() -> str:
    return yaml.safe_dump(_spec(), sort_keys=False, width=10_000)


def _spec() -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(MANIFEST.read_text("utf-8"))["spec"]
    return spec


if __name__ == "__main__":
    print(rules_file(), end="")
