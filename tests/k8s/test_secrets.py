"""The secrets that `make_secrets` makes are those that the manifests refer to, and hold together."""

from __future__ import annotations

import base64
import json
import subprocess
import sys

import pytest
from cryptography import x509

from k8s.make_secrets import NAMESPACE, NATS_NAMES, ROLES, main, make_secrets
from relay.adapters.nats.nkey import user_key
from tests.k8s.manifests import ROOT, cluster, config, find, manifests
from tests.k8s.test_agreement import walk


def test_every_secret_that_is_referred_to_is_made_with_its_keys() -> None:
    made = {name: set(values) for name, values in make_secrets().items()}
    referred: dict[str, set[str]] = {cluster()["spec"]["authOptions"]["secretName"]: {"auth_token"}}
    for key, value in walk(list(manifests())):
        if key == "secretKeyRef":
            referred.setdefault(value["name"], set()).add(value["key"])
        if key == "secret":
            items = {item["key"] for item in value.get("items", ())}
            referred.setdefault(value["secretName"], set()).update(items)
    for name, keys in referred.items():
        assert keys <= made[name], name
    assert made.keys() - referred.keys() == set()


def test_each_role_has_the_half_of_its_key_that_the_server_does_not_know() -> None:
    made = make_secrets()
    for role in ROLES:
        assert user_key(made[f"nats-{role}"]["user.nk"]).public == made["nats-users"][role]


def test_the_certificate_is_for_the_names_that_the_server_is_called_by() -> None:
    made = make_secrets()
    authority = x509.load_pem_x509_certificate(made["nats-publisher"]["ca.crt"].encode())
    server = x509.load_pem_x509_certificate(made["nats-tls"]["tls.crt"].encode())
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == list(NATS_NAMES)
    (url,) = config().nats.servers
    assert url.removeprefix("tls://").partition(":")[0] in NATS_NAMES
    assert find("Service", "nats")["metadata"]["name"] in NATS_NAMES


def test_redis_reads_the_password_that_ray_is_given() -> None:
    made = make_secrets()["redis"]
    assert made["auth.conf"] == f"requirepass {made['password']}\n"


def test_two_runs_have_nothing_in_common() -> None:
    first, second = ({v for values in make_secrets().values() for v in values.values()} for _ in range(2))
    assert not first & second


def test_the_command_writes_what_kubectl_creates() -> None:
    command = [sys.executable, "-m", "k8s.make_secrets"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    written = json.loads(done.stdout)
    assert {one["metadata"]["name"] for one in written["items"]} == make_secrets().keys()
    for one in written["items"]:
        assert (one["kind"], one["metadata"]["namespace"]) == ("Secret", NAMESPACE)
        assert all(base64.b64decode(value) for value in one["data"].values())
    assert done.stderr == ""


def test_a_terminal_gets_to_see_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "kubectl create" in err
