"""What `kubectl apply -k k8s` would send, as kubectl itself puts it together."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from relay.config import parse_config
from tests.k8s.manifests import K8S, NAMESPACE, config, kustomization, manifests

pytestmark = pytest.mark.needs("kubectl")


@cache
def built() -> list[dict[str, Any]]:
    done = subprocess.run(["kubectl", "kustomize", K8S], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return list(yaml.safe_load_all(done.stdout))


def by_name(kind: str, prefix: str) -> dict[str, Any]:
    (found,) = (one for one in built() if one["kind"] == kind and one["metadata"]["name"].startswith(prefix))
    return found


def test_it_holds_every_manifest_in_the_one_namespace() -> None:
    kinds = sorted(one["kind"] for one in built())
    generated = ["ConfigMap"] * len(kustomization()["configMapGenerator"])
    assert kinds == sorted([one["kind"] for one in manifests()] + generated)
    for one in built():
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == NAMESPACE


def test_the_image_is_renamed_in_rays_resources_too() -> None:
    (image,) = kustomization()["images"]
    spec = by_name("RayCluster", NAMESPACE)["spec"]
    templates = [spec["headGroupSpec"]["template"]]
    templates += [group["template"] for group in spec["workerGroupSpecs"]]
    templates.append(by_name("RayJob", NAMESPACE)["spec"]["submitterPodTemplate"])
    used = {one["image"] for template in templates for one in template["spec"]["containers"]}
    assert used == {f"{image['newName']}:{image['newTag']}"}


def test_the_streams_keep_their_name_and_servers_get_new_pods_for_new_settings() -> None:
    shards = by_name("ConfigMap", "shards")
    assert shards["metadata"]["name"] == "shards"
    assert parse_config(shards["data"]["shards.yaml"], {}) == config()
    for server in ("nats", "redis"):
        name = by_name("ConfigMap", f"{server}-config")["metadata"]["name"]
        assert name != f"{server}-config"
        volumes = by_name("StatefulSet", server)["spec"]["template"]["spec"]["volumes"]
        assert name in {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}


def test_anchors_come_out_as_what_they_stand_for() -> None:
    spec = by_name("RayCluster", NAMESPACE)["spec"]
    (written,) = (one for one in manifests() if one["kind"] == "RayCluster")
    for group, source in zip(spec["workerGroupSpecs"], written["spec"]["workerGroupSpecs"], strict=True):
        (made,), (meant,) = (one["template"]["spec"]["containers"] for one in (group, source))
        assert {key: value for key, value in made.items() if key != "image"} == {
            key: value for key, value in meant.items() if key != "image"
        }
