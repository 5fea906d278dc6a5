"""What k8s/ holds, as plain values, and the few questions that several tests ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

from relay.config import Config, load_config
from tests.support.paths import ROOT

K8S = ROOT / "k8s"
NAMESPACE = "sluice"

Manifest = dict[str, Any]


def read(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all((K8S / name).read_text(encoding="utf-8")))


@cache
def kustomization() -> Manifest:
    (found,) = read("kustomization.yaml")
    return found


@cache
def manifests() -> tuple[Manifest, ...]:
    """Everything that `kubectl apply -k k8s` sends, but for the ConfigMaps, which are made of files."""
    return tuple(one for name in kustomization()["resources"] for one in read(name))


def of_kind(kind: str) -> list[Manifest]:
    return [one for one in manifests() if one["kind"] == kind]


def find(kind: str, name: str = NAMESPACE) -> Manifest:
    (found,) = (each for each in of_kind(kind) if each["metadata"]["name"] == name)
    return found


def cluster() -> Manifest:
    return find("RayCluster")


def groups() -> dict[str, Manifest]:
    return {group["groupName"]: group for group in cluster()["spec"]["workerGroupSpecs"]}


def pod_templates() -> dict[str, Manifest]:
    """By name: Ray's groups, `head` and `submitter` among them, and the StatefulSets."""
    found = {name: group["template"] for name, group in groups().items()}
    found["head"] = cluster()["spec"]["headGroupSpec"]["template"]
    found["submitter"] = find("RayJob")["spec"]["submitterPodTemplate"]
    return found | {each["metadata"]["name"]: each["spec"]["template"] for each in of_kind("StatefulSet")}


def containers() -> Iterator[tuple[str, Manifest]]:
    for name, template in pod_templates().items():
        for container in template["spec"]["containers"]:
            yield name, container


def container(pod: str) -> Manifest:
    (found,) = pod_templates()[pod]["spec"]["containers"]
    return found


def config() -> Config:
    """The shards.yaml of the ConfigMap, as a pod reads it."""
    return load_config(K8S / "shards.yaml", {})


def quantity(text: str) -> float:
    """A Kubernetes quantity, such as 500m, 4Gi or 2."""
    units = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 0.001}
    for unit, factor in units.items():
        if str(text).endswith(unit):
            return float(str(text).removesuffix(unit)) * factor
    return float(text)
