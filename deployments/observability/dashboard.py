"""The Grafana dashboard as plain dicts: `python -m deployments.observability.dashboard`.

Writes its JSON to standard output; `dashboard.json` beside this file is that, and a test holds the
two together. It asks for its Prometheus when it is imported into Grafana, 10.1 or later.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from deployments.observability.panels import ROWS, Panel

__all__ = ["build", "main", "text"]

_SOURCE = {"type": "prometheus", "uid": "${source}"}
_COLUMNS = 24
# Width and height on Grafana's grid.
_NUMBER, _CHART = (4, 4), (8, 8)


def build() -> dict[str, Any]:
    """The dashboard, in the model that Grafana's importer takes."""
    return {
        "uid": "polyvec",
        "title": "Polyvec",
        "tags": ["polyvec"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # one cross-hair over every panel
        "refresh": "30s",
        "schemaVersion": 38,
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                _source(),
                _choice("model", "ray_polyvec_request_duration_seconds_count"),
                _choice("tenant", "ray_polyvec_billed_tokens_total"),
            ]
        },
        "panels": _panels(),
    }


def text() -> str:
    """`build` as JSON, as it is committed: a line for each panel."""
    frame = build()
    panels = ",\n".join(json.dumps(panel) for panel in frame.pop("panels"))
    return f'{json.dumps(frame)[:-1]}, "panels": [\n{panels}\n]}}\n'


def main() -> int:
    """Write the dashboard to standard output."""
    sys.stdout.write(text())
    return 0


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _choice(label: str, metric: str) -> dict[str, Any]:
    """A variable of all values of a label; "All" also matches series without it."""
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": f"label_values({metric}, {label})", "refId": label},
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> list[dict[str, Any]]:
    """Rows from top to bottom, their panels from left to right."""
    made: list[dict[str, Any]] = []
    y = 0
    for title, panels in ROWS.items():
        made.append({**_at(len(made), 0, y, _COLUMNS, 1), "type": "row", "title": title})
        y, x, height = y + 1, 0, 0
        for panel in panels:
            width, tall = _NUMBER if panel.kind == "number" else _CHART
            if x + width > _COLUMNS:
                x, y = 0, y + height
            made.append({**_at(len(made), x, y, width, tall), **_panel(panel)})
            x, height = x + width, tall
        y += height
    return made


def _at(count: int, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {"id": count + 1, "gridPos": {"x": x, "y": y, "w": w, "h": h}}


def _panel(panel: Panel) -> dict[str, Any]:
    number = panel.kind == "number"
    custom = {} if number else {"custom": _drawn(panel)}
    most = {"max": 1} if panel.kind == "share" else {}
    return {
        "type": "stat" if number else "timeseries",
        "title": panel.title,
        **({"description": panel.says} if panel.says else {}),
        "datasource": _SOURCE,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, **most, **custom},
            "overrides": [],
        },
        "options": _number() if number else _legend(),
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend or panel.title,
            }
            for place, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _drawn(panel: Panel) -> dict[str, Any]:
    stacked = panel.kind == "stack"
    return {
        "fillOpacity": 40 if stacked else 10,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
    }


def _number() -> dict[str, Any]:
    return {"colorMode": "none", "reduceOptions": {"calcs": ["lastNotNull"], "values": False}}


def _legend() -> dict[str, Any]:
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


if __name__ == "__main__":
    raise SystemExit(main())
