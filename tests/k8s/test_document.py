"""The commands of docs/kubernetes.md name what exists, and take what they are given."""

from __future__ import annotations

import re
import shlex

import pytest

import driver
from tests.k8s.manifests import ROOT, cluster, container, find, groups, kustomization, manifests

TEXT = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
DRIVEN = re.findall(r"driver\.py ([^\n<'`]+)", BLOCKS)


def test_there_are_commands_to_look_at() -> None:
    assert len(DRIVEN) > 5


@pytest.mark.parametrize("command", DRIVEN)
def test_the_driver_takes_what_it_is_given(command: str) -> None:
    assert driver.build_parser().parse_args(shlex.split(command.strip())).command


def test_files_exist() -> None:
    for name in re.findall(r"k8s/[\w.-]+", TEXT):
        assert (ROOT / name).exists(), name


def test_resources_are_called_so() -> None:
    names = {(one["kind"].lower(), one["metadata"]["name"]) for one in manifests()}
    # KubeRay's own: the head's Service, and the Job that submits.
    names |= {
        ("service", f"{cluster()['metadata']['name']}-head-svc"),
        ("job", find("RayJob")["metadata"]["name"]),
    }
    for kind, name in re.findall(r"\b(service|job|rayjob|raycluster|statefulset)/([\w-]+)", BLOCKS):
        assert (kind, name) in names, (kind, name)
    assert set(re.findall(r"ray\.io/group=(\w+)", TEXT)) <= groups().keys()
    assert set(re.findall(r"-c (ray-\w+) --", BLOCKS)) == {container("head")["name"]}


def test_sizes_are_those_of_the_manifests() -> None:
    for pod in ("streams", "publishers", "head"):
        size = container(pod)["resources"]["limits"]
        written = f"{size['cpu']} CPU, {size['memory'].removesuffix('Gi')} GiB"
        assert re.search(rf"^ {pod} .*{written}", TEXT, re.MULTILINE), pod


def test_the_image_is_built_under_the_name_that_is_pulled() -> None:
    (image,) = kustomization()["images"]
    assert BLOCKS.count(f"{image['newName']}:{image['newTag']}") == 2
