"""docs/metrics.md is what the list of metrics says."""

from __future__ import annotations

from relay.observability.metrics import Metric
from tests.support.paths import ROOT
from tools.metrics_page import page


def test_the_page_in_the_repository_is_the_one_of_the_code():
    assert (ROOT / "docs" / "metrics.md").read_text("utf-8") == page(), "run `make generated`"


def test_every_metric_stands_in_it_once():
    rows = [line for line in page().splitlines() if line.startswith("| `ray_")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(
        metric.value.exported_name for metric in Metric
    )
