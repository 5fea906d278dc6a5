"""The Grafana dashboards: made of the metrics that there are, and put where Ray looks for its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.observability.metrics import Metric
from tests.k8s.manifests import K8S
from tools.dashboards import FIRST_ID, ray_dashboard, rays_own, sluice_dashboard

GRAFANA = K8S / "grafana"
# kubectl keeps what it applied in an annotation, and all of these together may have this many bytes.
MAX_APPLIED_BYTES = 256 * 1024
# Ray leaves closing what it reads to the interpreter.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
GRAFANAS_OWN = {"__rate_interval", "__range"}


@cache
def merged() -> dict[str, Any]:
    return ray_dashboard(rays_own())


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def ours(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["id"] >= FIRST_ID]


def everything(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for panel in dashboard["panels"] for one in (panel, *panel.get("panels", ()))]


def test_the_one_to_import_is_the_one_that_the_script_makes() -> None:
    written = json.loads((GRAFANA / "sluice.json").read_text("utf-8"))
    assert written == sluice_dashboard(), "run `make generated`"


def test_backlogs_come_first_and_then_rates_latency_losses_publishers_and_the_pool() -> None:
    rows = [panel["title"] for panel in sluice_dashboard()["panels"] if panel["type"] == "row"]
    topics = ["backlog of each stream", "rates", "latency", "losses", "publishers", "pool"]
    assert rows == [f"Sluice: {topic}" for topic in topics]
    assert Metric.STREAM_BACKLOG.value.exported_name in expressions(sluice_dashboard()["panels"])[0]


@pytest.mark.parametrize("dashboard", [sluice_dashboard, merged])
def test_panels_have_numbers_and_places_of_their_own(dashboard: Any) -> None:
    numbers = [panel["id"] for panel in everything(dashboard())]
    assert len(numbers) == len(set(numbers))
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_panels_ask_for_metrics_that_there_are_by_variables_that_there_are() -> None:
    known = {metric.value.exported_name for metric in Metric}
    for dashboard in (sluice_dashboard(), merged()):
        variables = {one["name"] for one in dashboard["templating"]["list"]} | GRAFANAS_OWN
        for expression in expressions(ours(dashboard)):
            assert set(re.findall(r"ray_sluice_\w+", expression)) <= known
            assert set(re.findall(r"\$(\w+)", expression)) <= variables
            assert 'SessionName=~"$SessionName"' in expression


def test_each_panel_says_what_it_shows() -> None:
    for panel in ours(sluice_dashboard()):
        assert panel["title"]
        assert panel["type"] == "row" or (panel["description"] and panel["targets"])


def test_rays_own_is_all_there_below_ours_under_its_uid() -> None:
    own = json.loads(rays_own())
    dashboard = merged()
    assert dashboard["uid"] == own["uid"] == "rayDefaultDashboard"
    below = dashboard["panels"][len(ours(dashboard)) :]
    lowered = {
        mine["gridPos"]["y"] - theirs["gridPos"]["y"]
        for mine, theirs in zip(below, own["panels"], strict=True)
    }
    assert len(lowered) == 1
    for mine, theirs in zip(everything({"panels": below}), everything(own), strict=True):
        assert {k: v for k, v in mine.items() if k not in ("gridPos", "panels")} == {
            k: v for k, v in theirs.items() if k not in ("gridPos", "panels")
        }
    # Ray's Overview page embeds these two.
    assert {24, 41} <= {panel["id"] for panel in below}


def test_kustomize_makes_a_configmap_of_each_that_grafanas_sidecar_takes() -> None:
    made = yaml.safe_load((GRAFANA / "kustomization.yaml").read_text("utf-8"))
    assert made["generatorOptions"]["labels"]["grafana_dashboard"] == "1"
    assert [one["files"] for one in made["configMapGenerator"]] == [["sluice.json"], ["ray-default.json"]]


@pytest.mark.needs("kubectl")
def test_kubectl_can_apply_them(tmp_path: Path) -> None:
    shutil.copytree(GRAFANA, tmp_path / "grafana")
    (tmp_path / "grafana" / "ray-default.json").write_text(json.dumps(merged(), separators=(",", ":")))
    command = ["kubectl", "kustomize", str(tmp_path / "grafana")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    built = list(yaml.safe_load_all(done.stdout))
    assert {one["metadata"]["namespace"] for one in built} == {"monitoring"}
    assert [len(one["data"]) for one in built] == [1, 1]
    assert all(len(json.dumps(one)) < MAX_APPLIED_BYTES for one in built)
