"""The manifests against the schemas that KubeRay 1.7 installs, and the rules that its controller adds."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import pytest
import yaml

from tests.k8s import manifests
from tests.k8s.schema import faults

CRDS = manifests.ROOT.parent / "shared" / "kuberay-crds"
FILES = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}

needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason=f"KubeRay's CRDs are not at {CRDS}")


@cache
def schema(kind: str) -> dict[str, Any]:
    text = (CRDS / FILES[kind]).read_text(encoding="utf-8")
    crd = yaml.load(text, Loader=yaml.CSafeLoader)
    assert crd["spec"]["names"]["kind"] == kind
    (version,) = (one for one in crd["spec"]["versions"] if one["name"] == "v1")
    assert version["storage"]
    return version["schema"]["openAPIV3Schema"]


@cache
def pod_schema() -> dict[str, Any]:
    """The one of every pod template: Kubernetes' own, as KubeRay repeats it."""
    return schema("RayCluster")["properties"]["spec"]["properties"]["headGroupSpec"]["properties"]["template"]


@needs_crds
@pytest.mark.parametrize("kind", FILES)
def test_kuberays_schema_takes_it(kind: str) -> None:
    assert list(faults(schema(kind), manifests.find(kind))) == []


@needs_crds
def test_every_pod_template_is_one_to_kubernetes() -> None:
    for name, template in manifests.pod_templates().items():
        assert list(faults(pod_schema(), template)) == [], name


DAMAGES: list[tuple[str, Any, str]] = [
    ("spec.autoscalerOptions.version", "v3", "is not one of"),
    ("spec.authOptions.tokenName", "x", "unknown"),
    ("spec.headGroupSpec.template.spec.containers.0.imagePullPolice", "Always", "unknown"),
    ("spec.headGroupSpec.template.spec.terminationGracePeriodSeconds", "60", "not of type integer"),
    ("spec.workerGroupSpecs.0.replicas", True, "not of type integer"),
    ("spec.workerGroupSpecs.0.template.spec.containers.0.resources.limits.cpu", [2], "neither a number"),
    ("spec.workerGroupSpecs.0.template.spec.containers.0.resources.limits.cpu", "two", "does not match"),
    ("spec.headGroupSpec.template.spec.containers.0.name", None, "not of type string"),
]


@needs_crds
@pytest.mark.parametrize(("path", "value", "fault"), DAMAGES, ids=[path for path, _, _ in DAMAGES])
def test_the_check_finds_what_an_api_server_would_refuse(path: str, value: Any, fault: str) -> None:
    damaged = copy.deepcopy(manifests.cluster())
    *way, last = path.split(".")
    place = damaged
    for step in way:
        place = place[int(step)] if step.isdecimal() else place[step]
    place[last] = value
    # An anchor carries the damage to its other places.
    found = list(faults(schema("RayCluster"), damaged))
    assert found
    assert all(fault in one for one in found)


@needs_crds
def test_the_check_misses_what_is_required() -> None:
    damaged = copy.deepcopy(manifests.cluster())
    del damaged["spec"]["workerGroupSpecs"][0]["maxReplicas"]
    assert list(faults(schema("RayCluster"), damaged)) == [".spec.workerGroupSpecs[0].maxReplicas: missing"]


# What validation.go and pod.go of KubeRay 1.7 refuse, or change behind one's back, and no schema says.


def test_the_autoscaler_is_chosen_in_one_place_and_restarts_no_pod() -> None:
    spec = manifests.cluster()["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    for name in ("head", *manifests.groups()):
        assert manifests.pod_templates()[name]["spec"].get("restartPolicy", "Never") == "Never"
        assert "RAY_enable_autoscaler_v2" not in variables(name)


def test_the_token_is_written_out_with_the_version_that_it_needs() -> None:
    spec = manifests.cluster()["spec"]
    assert spec["authOptions"]["mode"] == "token"
    assert tuple(map(int, spec["rayVersion"].split("."))) >= (2, 52, 0)
    reference = {"name": spec["authOptions"]["secretName"], "key": "auth_token"}
    for name in ("head", "submitter", *manifests.groups()):
        assert variables(name)["RAY_AUTH_MODE"] == {"value": "token"}
        assert variables(name)["RAY_AUTH_TOKEN"] == {"valueFrom": {"secretKeyRef": reference}}


def test_redis_is_named_in_its_option_alone() -> None:
    spec = manifests.cluster()["spec"]
    options = spec["gcsFaultToleranceOptions"]
    assert "secretKeyRef" in options["redisPassword"]["valueFrom"]
    assert not {"REDIS_PASSWORD", "REDIS_USERNAME", "RAY_REDIS_ADDRESS"} & variables("head").keys()
    assert not {"redis-password", "redis-username"} & spec["headGroupSpec"]["rayStartParams"].keys()
    annotations = manifests.cluster()["metadata"].get("annotations", {})
    assert not {"ray.io/ft-enabled", "ray.io/external-storage-namespace"} & annotations.keys()


def test_nothing_needs_a_gate_that_is_off_or_deletes_pods_by_itself() -> None:
    spec = manifests.cluster()["spec"]
    alpha = {"networkPolicy", "tlsOptions", "historyServerOptions", "suspend", "upgradeStrategy", "managedBy"}
    assert not alpha & spec.keys()
    assert spec["gcsFaultToleranceOptions"].get("backend", "redis") == "redis"
    for group in manifests.groups().values():
        assert not {"suspend", "scaleStrategy"} & group.keys()


def test_cpus_and_labels_are_given_once() -> None:
    spec = manifests.cluster()["spec"]
    for group in (spec["headGroupSpec"], *manifests.groups().values()):
        assert "resources" not in group
        assert "labels" not in group["rayStartParams"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_autoscalers_account_is_left_to_kuberay() -> None:
    """It makes one with the rights that it needs only where none is named."""
    assert "serviceAccountName" not in manifests.pod_templates()["head"]["spec"]


def test_the_job_goes_to_the_running_cluster_in_the_one_mode_that_can() -> None:
    spec = manifests.find("RayJob")["spec"]
    assert spec["clusterSelector"] == {"ray.io/cluster": manifests.cluster()["metadata"]["name"]}
    assert spec["submissionMode"] == "K8sJobMode"
    assert not {"rayClusterSpec", "suspend", "backoffLimit", "shutdownAfterJobFinishes"} & spec.keys()


@pytest.mark.parametrize("kind", FILES)
def test_names_leave_room_for_what_kuberay_adds(kind: str) -> None:
    name = manifests.find(kind)["metadata"]["name"]
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    assert len(name) <= 47


def variables(pod: str) -> dict[str, dict[str, Any]]:
    return {
        one["name"]: {key: value for key, value in one.items() if key != "name"}
        for one in manifests.container(pod)["env"]
    }
