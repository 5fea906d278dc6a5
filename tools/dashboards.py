"""Prints a Grafana dashboard: `sluice`, for import into Grafana, or `ray`, for Ray's Metrics tab.

`ray` is Ray's own default dashboard with our rows above it. Ray embeds the dashboard by its uid, and its
panels 24 and 41 on the Overview page, so the uid and these numbers are kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from tools.dashboard_panels import ROWS, STATE_NUMBERS, Panel, Query, Row

# Above the ids of Ray's own panels.
FIRST_ID = 9001
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS, _HEIGHT, _STAT_HEIGHT = 24, 8, 4
_SIGNED = {"connecting": "orange", "live": "green", "blocked": "red", "draining": "orange", "stopped": "text"}

Json = dict[str, Any]


def sluice_dashboard() -> Json:
    return {
        "uid": "sluice",
        "title": "Sluice",
        "description": "Made by tools/dashboards.py.",
        "tags": ["sluice"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": [_datasource(), *_ray_variables(), _stream_variable()]},
        "panels": list(_panels(ROWS)),
    }


def ray_dashboard(theirs_as_text: str) -> Json:
    """Our rows above those of the dashboard that Ray generates, given as JSON."""
    dashboard: Json = json.loads(theirs_as_text)
    ours = list(_panels(ROWS))
    height = _bottom(ours)
    theirs = [_lowered(panel, height) for panel in dashboard["panels"]]
    dashboard["panels"] = ours + theirs
    dashboard["templating"]["list"].append(_stream_variable())
    return dashboard


def _panels(rows: Sequence[Row]) -> Iterator[Json]:
    number, y = FIRST_ID, 0
    for row in rows:
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [],
               "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1}}  # fmt: skip
        number, y = number + 1, y + 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
            height = _STAT_HEIGHT if panel.kind == "stat" else _HEIGHT
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": height})
            number, x = number + 1, x + panel.width
        y += height


def _panel(panel: Panel, number: int, place: Json) -> Json:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [_target(panel, query, at) for at, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _target(panel: Panel, query: Query, at: int) -> Json:
    target = {
        "refId": chr(ord("A") + at),
        "datasource": _SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
    }
    if panel.kind == "heatmap":
        target["format"] = "heatmap"
    return target | ({"instant": True, "range": False} if query.now else {"range": True})


def _defaults(panel: Panel) -> Json:
    defaults: Json = {"unit": panel.unit, "min": 0}
    if panel.bad:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}, "color": {"mode": "thresholds"}}
    if panel.kind == "timeseries":
        style = {"fillOpacity": 20 if panel.stacked else 0, "lineWidth": 1, "showPoints": "never"}
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        defaults["custom"] = style | {"stacking": stacking}
    elif panel.kind == "bargauge":
        defaults["color"] = {"mode": "continuous-BlYlRd"}
    elif panel.kind == "state-timeline":
        names = {
            str(at): {"text": str(state), "color": _SIGNED[state]} for state, at in STATE_NUMBERS.items()
        }
        defaults |= {"mappings": [{"type": "value", "options": names}], "custom": {"fillOpacity": 70}}
    return defaults


def _options(panel: Panel) -> Json:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "bargauge":
            return {
                "displayMode": "gradient",
                "orientation": "horizontal",
                "reduceOptions": last,
                "valueMode": "color",
            }
        case "stat":
            return {"colorMode": "value", "graphMode": "none", "reduceOptions": last}
        case "heatmap":
            return {
                "calculate": False,
                "yAxis": {"unit": panel.unit, "axisPlacement": "left"},
                "rowsFrame": {"layout": "le"},
                "color": {"mode": "scheme", "scheme": "Blues", "steps": 64},
                "tooltip": {"mode": "single", "yHistogram": True},
                "legend": {"show": False},
            }
        case "state-timeline":
            return {"mergeValues": True, "showValue": "never", "rowHeight": 0.8}
    return {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _bottom(panels: Sequence[Json]) -> int:
    return max(int(one["gridPos"]["y"] + one["gridPos"]["h"]) for one in panels)


def _lowered(panel: Json, by: int) -> Json:
    place = panel["gridPos"] | {"y": panel["gridPos"]["y"] + by}
    inner = [_lowered(one, by) for one in panel.get("panels", ())]
    return panel | {"gridPos": place} | ({"panels": inner} if "panels" in panel else {})


def _datasource() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _ray_variables() -> list[Json]:
    """The variables of Ray's own dashboards, so that a selection survives links between dashboards."""
    return [
        _variable("SessionName", "label_values(ray_sluice_relay_ready, SessionName)", ".+"),
        _variable("Cluster", "label_values(ray_sluice_relay_ready, ray_io_cluster)", ".*"),
    ]


def _stream_variable() -> Json:
    query = 'label_values(ray_sluice_stream_live{SessionName=~"$SessionName"}, stream)'
    return _variable("stream", query, ".+") | {"multi": True}


def _variable(name: str, query: str, everything: str) -> Json:
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "includeAll": True,
        "allValue": everything,
        "current": {"selected": True, "text": "All", "value": "$__all"},
        "refresh": 2,
        "sort": 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.dashboards", description=__doc__)
    parser.add_argument("which", choices=("sluice", "ray"))
    if parser.parse_args().which == "sluice":
        print(json.dumps(sluice_dashboard(), indent=1))
    else:
        # Compact, because `kubectl apply` accepts no more than 256 KiB.
        print(json.dumps(ray_dashboard(rays_own()), separators=(",", ":")))


def rays_own() -> str:
    from ray.dashboard.modules.metrics.grafana_dashboard_factory import generate_default_grafana_dashboard

    content: str = generate_default_grafana_dashboard()[0]
    return content


if __name__ == "__main__":
    main()
