"""The alert rules: each fires when it should, and stands in the table of what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from relay.observability.metrics import Metric
from tests.k8s.manifests import ROOT
from tools.alert_rules import rules, rules_file

UNIT_TESTS = Path(__file__).parent / "alerts_test.yaml"
NAMES = [rule["alert"] for rule in rules()]


@pytest.mark.needs("promtool")
def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rules_file(), encoding="utf-8")
    shutil.copy(UNIT_TESTS, tmp_path)
    for arguments in (["check", "rules", "rules.yaml"], ["test", "rules", UNIT_TESTS.name]):
        done = subprocess.run(
            ["promtool", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_made_to_fire_by_the_unit_tests() -> None:
    text = UNIT_TESTS.read_text("utf-8")
    assert set(re.findall(r"alertname: (\w+)\n.*\n +exp_alerts:", text)) == set(NAMES)


def test_the_table_of_what_to_do_has_each_alert_and_no_other() -> None:
    alarms = (ROOT / "docs" / "operations.md").read_text("utf-8").partition("## Alarms")[2]
    assert re.findall(r"^\| `(\w+)` \|", alarms, re.MULTILINE) == NAMES


def test_rules_ask_for_metrics_that_there_are() -> None:
    known = {metric.value.exported_name for metric in Metric}
    for rule in rules():
        asked = set(re.findall(r"ray_\w+", rule["expr"])) - {"ray_io_cluster"}
        assert asked and asked <= known, rule["alert"]


def test_each_alert_says_how_much_it_matters_and_what_happened() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}
