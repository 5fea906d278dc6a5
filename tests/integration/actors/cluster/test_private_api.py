"""What actors/cluster/private_api.py counts on, on a real Ray: a new version fails here first."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import ray
from ray import _raylet

from actors.runtime import local_ray
from actors.runtime.local_ray import Session
from relay.adapters.local.process_tree import children, descendants, is_running
from relay.observability.metrics import Metric
from tests.integration.actors.cluster.workers import OWN_TITLE, Counting, Plain, Titled
from tests.support import polling

WAIT_S = 20.0
SPACE = b"sluice/private-api"
JOIN = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('has joined')"
AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")

# Where to read, in the installed package unless it is C++, when Ray no longer does what is counted on.
READ = {
    "ray._private.worker.print_to_stdstream": "ray/_private/worker.py, listen_error_messages",
    "ray._private.worker._changeproctitle": "ray/_private/worker.py and _raylet.pyx, who calls it",
    "ray._raylet.setproctitle": "python/ray/includes/setproctitle.pxi",
    "ray._raylet.Config.initialize": "python/ray/includes/ray_config.pxi, src/ray/common/ray_config.cc",
    "ray._raylet.AuthenticationTokenLoader": "ray/_private/authentication/authentication_token_setup.py",
    "ray._private.ray_constants.ENABLE_RAY_CLUSTER": "ray/_private/services.py, get_node_ip_address",
    "ray._private.utils.read_ray_address": "ray/_private/utils.py, write_ray_address",
    "ray.experimental.internal_kv._internal_kv_get": "ray/experimental/internal_kv.py",
    "ray.experimental.internal_kv._internal_kv_put": "ray/experimental/internal_kv.py",
    "ray.experimental.internal_kv._internal_kv_list": "ray/experimental/internal_kv.py",
    "ray.experimental.internal_kv._internal_kv_del": "ray/experimental/internal_kv.py",
    "ray.util.metrics.Counter._record": "ray/util/metrics.py, Counter.inc",
    "ray._private.state.state.actor_table": "ray/_private/state.py, actor_table",
    "ray.actor.ActorHandle._actor_id": "ray/actor.py, ActorHandle",
    "ray.init(_temp_dir=)": "ray/_private/worker.py, init",
    "RAY_worker_niceness": "src/ray/common/ray_config_def.h",
    "RAY_metrics_report_interval_ms": "src/ray/common/ray_config_def.h",
    "RAY_kill_worker_timeout_milliseconds": "src/ray/common/ray_config_def.h",
    "RunTaskExecutionLoop": "src/ray/core_worker/core_worker.cc, and docs/adr/0011",
}
# Those of a class's instances, and of no module.
OF_INSTANCES = {"ray.actor.ActorHandle._actor_id"}


@contextmanager
def counted_on(*names: str) -> Iterator[None]:
    """Adds to every error below what to read."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported with what to read
        places = "; ".join(f"{name}: {READ[name]}" for name in names)
        pytest.fail(f"Ray {ray.__version__} does not do what is counted on. Read {places}. ({error!r})")


@pytest.mark.parametrize("name", [name for name in READ if name.startswith("ray.") and "(" not in name])
def test_the_name_is_there(name: str) -> None:
    parts = name.split(".")
    found: object = None
    with counted_on(name):
        for count in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:count]))
            except ImportError:
                continue
            break
        for part in parts[count : -1 if name in OF_INSTANCES else None]:
            found = getattr(found, part)
    assert found is not None


@pytest.fixture(scope="module")
def private_api() -> ModuleType:
    """Imported here, so that a name that is missing shows by a message of the test above."""
    return importlib.import_module("actors.cluster.private_api")


@pytest.fixture(scope="module")
def just_started(private_api: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A Ray of our own, as a driver starts it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        patch.delenv("RAY_ADDRESS", raising=False)
        one = local_ray.start("private-api", needed_cpus=2, include_dashboard=False, shared=False)
        try:
            yield one
        finally:
            local_ray.end(one)


@pytest.fixture(scope="module")
def intruder(just_started: Session) -> Iterator[subprocess.Popen[str]]:
    """Tries to join without the token. Ray gives up after 20 s, in which the other tests run."""
    environ = {name: value for name, value in os.environ.items() if name not in AUTH}
    command = [sys.executable, "-c", JOIN, just_started.address]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as it:
        yield it
        it.kill()


@pytest.fixture(scope="module")
def session(just_started: Session, intruder: subprocess.Popen[str]) -> Session:
    return just_started


def made(worker: type, **options: object) -> object:
    return ray.remote(worker).options(num_cpus=0, **options).remote()


def until(met: Callable[[], object], wait_s: float = WAIT_S) -> None:
    polling.until(met, within_s=wait_s)


def test_the_environment_is_read_again(private_api, monkeypatch, tmp_path):
    tokens = [tmp_path / "one", tmp_path / "two"]
    for number, token in enumerate(tokens):
        token.write_text(str(number) * 64)

    def header() -> str:
        return _raylet.AuthenticationTokenLoader.instance().get_token_for_http_header()["authorization"]

    for name in AUTH:
        monkeypatch.delenv(name, raising=False)
    with counted_on("ray._raylet.Config.initialize", "ray._raylet.AuthenticationTokenLoader"):
        private_api.read_environment()
        assert _raylet.get_authentication_mode() == _raylet.AuthenticationMode.DISABLED
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        for number, token in enumerate(tokens):
            monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
            private_api.read_environment()
            assert _raylet.get_authentication_mode() == _raylet.AuthenticationMode.TOKEN
            assert header() == f"Bearer {str(number) * 64}"
    with counted_on("ray._private.ray_constants.ENABLE_RAY_CLUSTER"):
        monkeypatch.setenv(private_api.MULTI_NODE, "0")
        private_api.read_environment()
        assert ray.util.get_node_ip_address() == "127.0.0.1"
    monkeypatch.undo()
    private_api.read_environment()


def test_what_ray_start_wrote_is_read(private_api, monkeypatch, tmp_path):
    """`ray start` calls write_ray_address, and RAY_TMPDIR says where."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with counted_on("ray._private.utils.read_ray_address"):
        assert private_api.read_ray_address() is None
        (tmp_path / "ray").mkdir()
        ray._private.utils.write_ray_address("127.0.0.1:12345")
        assert private_api.read_ray_address() == "127.0.0.1:12345"


def test_a_ray_of_our_own_lives_below_its_run_directory(session):
    with counted_on("ray.init(_temp_dir=)"):
        assert list((session.started.run_directory / "ray").glob("session_2*/logs"))


def test_a_ray_of_our_own_listens_on_loopback_alone(session):
    ours = {process.pid for process in descendants(children(os.getpid()))} | {os.getpid()}
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout.splitlines()
    found = [line.split()[3] for line in lines if any(f"pid={pid}," in line for pid in ours)]
    with counted_on("ray._private.ray_constants.ENABLE_RAY_CLUSTER"):
        assert found
        assert [one for one in found if not one.startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:"))] == []


def test_facts_are_kept_by_namespace(private_api, session):
    names = (name for name in READ if "internal_kv" in name)
    with counted_on(*names):
        private_api.kv_put("a/1", b"one", SPACE, overwrite=False)
        private_api.kv_put("a/1", b"other", SPACE, overwrite=False)
        assert private_api.kv_get("a/1", SPACE) == b"one"
        private_api.kv_put("a/1", b"other", SPACE, overwrite=True)
        private_api.kv_put("a/2", b"\0\xff", SPACE, overwrite=True)
        private_api.kv_put("b", b"", SPACE, overwrite=True)
        assert [private_api.kv_get(key, SPACE) for key in ("a/1", "a/2", "b")] == [b"other", b"\0\xff", b""]
        assert sorted(private_api.kv_list("a/", SPACE)) == ["a/1", "a/2"]
        assert private_api.kv_get("a/1", SPACE + b"2") is None
        private_api.kv_delete("a/1", SPACE)
        assert private_api.kv_get("a/1", SPACE) is None
        private_api.kv_put("c", b"kept", SPACE + b"2", overwrite=True)
        private_api.kv_delete_all(SPACE)
        assert private_api.kv_list("", SPACE) == []
        assert private_api.kv_get("c", SPACE + b"2") == b"kept"


def test_workers_run_at_normal_priority(session):
    with counted_on("RAY_worker_niceness"):
        assert ray.get(made(Plain).niceness.remote(), timeout=WAIT_S) == 0


def test_an_actor_keeps_its_title(session):
    """Without our patch Ray's title of the method that runs stands there."""
    plain, titled = made(Plain), made(Titled)
    with counted_on("ray._private.worker._changeproctitle", "ray._raylet.setproctitle"):
        assert ray.get(plain.title.remote(), timeout=WAIT_S) == "ray::Plain.title"
        ray.get(titled.entitle.remote(), timeout=WAIT_S)
        assert ray.get(titled.title.remote(), timeout=WAIT_S) == OWN_TITLE
        pid = ray.get(titled.pid.remote(), timeout=WAIT_S)
        assert Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").rstrip("\0") == OWN_TITLE


def test_the_state_of_an_actor_is_known(private_api, session):
    one = made(Plain)
    with counted_on("ray._private.state.state.actor_table", "ray.actor.ActorHandle._actor_id"):
        ray.get(one.pid.remote(), timeout=WAIT_S)
        assert private_api.actor_state(one) == "ALIVE"
        ray.kill(one)
        until(lambda: private_api.actor_state(one) == "DEAD")


def test_the_message_of_a_killed_worker_is_not_printed(private_api, session, capfd):
    lines: list[str] = []
    private_api.redirect_error_messages(lines.append)
    one = made(Plain)
    with counted_on("ray._private.worker.print_to_stdstream"):
        with pytest.raises(ray.exceptions.ActorDiedError):
            ray.get(one.end.remote(), timeout=WAIT_S)
        until(lambda: any("died" in line for line in lines))
        assert capfd.readouterr() == ("", "")


def test_a_frozen_worker_is_killed_within_seconds(session):
    """After 5 s where the flag is unknown."""
    one = made(Plain)
    pid = ray.get(one.pid.remote(), timeout=WAIT_S)
    worker = next(process for process in descendants(children(os.getpid())) if process.pid == pid)
    os.kill(pid, signal.SIGSTOP)
    ray.kill(one)
    with counted_on("RAY_kill_worker_timeout_milliseconds"):
        until(lambda: not is_running(worker), 4.0)


def metrics_lines() -> list[str]:
    """What the exporter of the only node serves."""
    (node,) = ray.nodes()
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode().splitlines()


def test_a_counter_is_exported_from_zero_on_and_soon(session):
    """Ray reports every 10 s where the flag is unknown."""
    name, tags = Metric.STREAM_LOST.value.exported_name, ("usdm:private@api",)
    one = made(Counting)

    def exported(value: str) -> bool:
        mine = (line for line in metrics_lines() if line.startswith(f"{name}{{") and tags[0] in line)
        return any(line.endswith(value) for line in mine)

    with counted_on("ray.util.metrics.Counter._record"):
        ray.get(one.add.remote(Metric.STREAM_LOST.name, tags, 0.0), timeout=WAIT_S)
        until(lambda: exported(" 0.0"))
    with counted_on("RAY_metrics_report_interval_ms"):
        ray.get(one.add.remote(Metric.STREAM_LOST.name, tags, 2.0), timeout=WAIT_S)
        until(lambda: exported(" 2.0"), 5.0)


def test_an_idle_worker_looks_for_signals_on_its_main_thread_a_hundred_times_a_second(private_api, session):
    one = made(Counting)
    with counted_on("RunTaskExecutionLoop"):
        on_main_thread, first = ray.get(one.polls.remote(), timeout=WAIT_S)
        began = time.monotonic()
        time.sleep(2.0)
        _, second = ray.get(one.polls.remote(), timeout=WAIT_S)
        rate_hz = (second - first) / (time.monotonic() - began)
        assert on_main_thread
        # Busy cores make it less.
        assert 0.2 * private_api.SIGNAL_POLL_HZ < rate_hz < 1.5 * private_api.SIGNAL_POLL_HZ


@pytest.mark.long
def test_nobody_joins_without_the_token(session, intruder):
    output, _ = intruder.communicate(timeout=60)
    with counted_on("ray._raylet.Config.initialize", "ray._raylet.AuthenticationTokenLoader"):
        assert "Failed to connect to Ray cluster" in output
        assert "has joined" not in output
        command = [sys.executable, "-c", JOIN, session.address]
        assert "has joined" in subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
