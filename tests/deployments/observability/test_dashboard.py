"""The dashboard that is committed is the one that is built, and shows what there is."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deployments.observability import dashboard
from serving.telemetry.metrics import METRICS
from tests.deployments.observability.expressions import FOLDER, Names, panels, read, rules


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
    down = one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]
    return across and down


def test_the_committed_dashboard_is_the_one_that_is_built() -> None:
    hint = (
        "python -m deployments.observability.dashboard > deployments/observability/dashboard.json"
    )
    assert (FOLDER / "dashboard.json").read_text() == dashboard.text(), hint


def through_grafana(built: dict[str, Any]) -> dict[str, Any]:
    """The dashboard as Grafana's own model writes it again: with defaults, without the unknown."""
    register_default_plugins()
    written: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(built)))
    return written


def lost(mine: Any, theirs: Any, where: str = "") -> list[str]:
    """What `mine` has and `theirs` has not, or otherwise."""
    match mine, theirs:
        case dict(), dict():
            return [x for key in mine for x in lost(mine[key], theirs.get(key), f"{where}/{key}")]
        case list(), list() if len(mine) == len(theirs):
            pairs = enumerate(zip(mine, theirs, strict=True))
            return [x for place, pair in pairs for x in lost(*pair, f"{where}/{place}")]
        case _:
            return [] if mine == theirs else [f"{where}: {mine!r} is {theirs!r}"]


def test_grafana_knows_every_field_of_it() -> None:
    built = dashboard.build()
    assert not lost(built, through_grafana(built))


@pytest.mark.parametrize("path", [(), ("options",), ("fieldConfig", "defaults", "custom")])
def test_a_field_that_grafana_does_not_know_is_seen(path: tuple[str, ...]) -> None:
    built = dashboard.build()
    place = next(panel for panel in built["panels"] if panel["type"] == "timeseries")
    for key in path:
        place = place[key]
    place["fillOpacitee"] = 40
    assert lost(built, through_grafana(built))


def test_no_panel_lies_on_another_or_over_the_edge() -> None:
    places = [panel["gridPos"] for panel in dashboard.build()["panels"]]
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]
    assert all(place["x"] + place["w"] <= 24 for place in places)


def test_panels_have_numbers_and_titles_of_their_own() -> None:
    built = dashboard.build()["panels"]
    assert len({panel["id"] for panel in built}) == len(built)
    charts = [panel["title"] for panel in built if panel["type"] != "row"]
    assert len(set(charts)) == len(charts)


def test_every_expression_names_what_there_is(known: Names) -> None:
    wrong = [f"{title}: {line}" for title, expr in panels() for line in read(expr, known).wrong]
    assert not wrong, "\n".join(wrong)


def test_every_metric_of_ours_is_looked_at_somewhere(known: Names) -> None:
    expressions = [expression for _, expression in panels()] + [rule["expr"] for rule in rules()]
    named = set().union(*(read(expression, known).names for expression in expressions))
    ends = ("", "_bucket", "_count", "_sum")
    unseen = [m.name for m in METRICS if not {f"ray_{m.name}{end}" for end in ends} & named]
    assert not unseen
