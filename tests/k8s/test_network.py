"""Who reaches whom under the network policies, worked out as Kubernetes does."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.k8s.manifests import NAMESPACE, of_kind
from tests.k8s.test_agreement import pod_labels


@dataclass(frozen=True)
class Peer:
    """A pod, or with `address` somebody outside the cluster."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = NAMESPACE
    namespace_labels: dict[str, str] = field(default_factory=dict)
    address: str = ""


HEAD, STREAMS, PUBLISHERS = (Peer(pod_labels(name)) for name in ("head", "streams", "publishers"))
NATS, REDIS, SUBMITTER = (Peer(pod_labels(name)) for name in ("nats", "redis", "submitter"))
CLEANUP = Peer({"ray.io/cluster": NAMESPACE, "ray.io/node-type": "redis-cleanup"})
DNS = Peer({"k8s-app": "kube-dns"}, "kube-system")
OPERATOR = Peer({}, "kuberay-operator")
PROMETHEUS = Peer({}, "monitoring")
STRATEGY = Peer({}, "strategies", {"sluice-nats": "client"})
STRANGER = Peer({}, "strangers")
BINANCE = Peer(address="13.112.0.1", namespace="")
METADATA = Peer(address="169.254.169.254", namespace="")
NEIGHBOUR = Peer(address="10.0.0.7", namespace="")


def may(source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    out = source.namespace != NAMESPACE or allowed("egress", "to", source, target, port, protocol)
    into = target.namespace != NAMESPACE or allowed("ingress", "from", target, source, port, protocol)
    return out and into


def allowed(direction: str, side: str, pod: Peer, other: Peer, port: int, protocol: str) -> bool:
    chosen = [
        policy["spec"]
        for policy in of_kind("NetworkPolicy")
        if selects(policy["spec"]["podSelector"], pod.labels)
        and direction.capitalize() in policy["spec"]["policyTypes"]
    ]
    assert chosen, "the default must deny"
    return any(
        (side not in rule or any(matches(one, other) for one in rule[side]))
        and ("ports" not in rule or {"port": port, "protocol": protocol} in rule["ports"])
        for spec in chosen
        for rule in spec.get(direction, ())
    )


def matches(rule: dict[str, Any], other: Peer) -> bool:
    if "ipBlock" in rule:
        block = rule["ipBlock"]
        return bool(other.address) and (
            inside(other.address, block["cidr"])
            and not any(inside(other.address, one) for one in block.get("except", ()))
        )
    if other.address:
        return False
    if "namespaceSelector" not in rule and other.namespace != NAMESPACE:
        return False
    labels = {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels}
    return selects(rule.get("namespaceSelector", {}), labels) and selects(
        rule.get("podSelector", {}), other.labels
    )


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def inside(address: str, block: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(block)


NEEDED = [
    (STREAMS, PUBLISHERS, 41234),
    (PUBLISHERS, STREAMS, 41234),
    (STREAMS, HEAD, 6379),
    (HEAD, PUBLISHERS, 52365),
    (STREAMS, BINANCE, 443),
    (STREAMS, BINANCE, 9443),
    (STREAMS, NATS, 4222),
    (PUBLISHERS, NATS, 4222),
    (HEAD, NATS, 4222),
    (STRATEGY, NATS, 4222),
    (HEAD, REDIS, 6379),
    (CLEANUP, REDIS, 6379),
    (HEAD, BINANCE, 6443),
    (SUBMITTER, HEAD, 8265),
    (OPERATOR, HEAD, 8265),
    (HEAD, PROMETHEUS, 9090),
    (HEAD, PROMETHEUS, 3000),
    *((PROMETHEUS, pod, 8080) for pod in (HEAD, STREAMS, PUBLISHERS)),
    (PROMETHEUS, HEAD, 44217),
    (PROMETHEUS, HEAD, 44227),
]

REFUSED = [
    *((STRANGER, pod, port) for pod, port in ((HEAD, 8265), (HEAD, 6379), (STREAMS, 41234), (REDIS, 6379))),
    *((STRANGER, pod, port) for pod, port in ((NATS, 4222), (HEAD, 10001), (HEAD, 8080))),
    (OPERATOR, HEAD, 6379),
    (SUBMITTER, HEAD, 10001),
    (SUBMITTER, NATS, 4222),
    (PROMETHEUS, HEAD, 8265),
    (STRATEGY, HEAD, 8265),
    (STRATEGY, NATS, 8222),
    (STREAMS, REDIS, 6379),
    (PUBLISHERS, BINANCE, 443),
    (NATS, BINANCE, 443),
    (REDIS, BINANCE, 443),
    *((STREAMS, private, 443) for private in (METADATA, NEIGHBOUR)),
    (STREAMS, BINANCE, 80),
]


@pytest.mark.parametrize(("source", "target", "port"), NEEDED)
def test_what_the_relay_needs_is_open(source: Peer, target: Peer, port: int) -> None:
    assert may(source, target, port)


@pytest.mark.parametrize(("source", "target", "port"), REFUSED)
def test_everything_else_is_shut(source: Peer, target: Peer, port: int) -> None:
    assert not may(source, target, port)


@pytest.mark.parametrize("pod", [HEAD, STREAMS, PUBLISHERS, NATS, REDIS, SUBMITTER])
def test_everybody_may_look_up_names(pod: Peer) -> None:
    assert may(pod, DNS, 53, "UDP")
    assert may(pod, DNS, 53, "TCP")
