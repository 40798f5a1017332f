"""Reads the rules and the dashboard, and holds what they name against what a scrape shows.

`shown` reads an exposition, whoever wrote it: the table of our metrics, or a service that runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deployments import observability
from deployments.observability.panels import ROWS
from serving.telemetry import metrics

HERE = Path(__file__).parent
FOLDER = Path(observability.__file__).parent
# Prometheus adds these to every series, Ray this one to each of its own.
ADDED = frozenset({"instance", "job", "WorkerId"})
# What Prometheus writes itself.
OWN = {
    "up": frozenset[str](),
    "ALERTS": frozenset({"alertname", "alertstate", "severity", "burn", "model"}),
}

# Of a scrape's names, those of its samples, each with its labels.
Names = Mapping[str, frozenset[str]]


def shown(exposition: str) -> dict[str, frozenset[str]]:
    """Every name that a text in Prometheus' format shows, with the labels it comes with."""
    names: dict[str, frozenset[str]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            names[sample.name] = names.get(sample.name, frozenset()) | set(sample.labels)
    return names


@dataclass(slots=True)
class Reading:
    """What one expression names, and what is wrong with that, as sentences."""

    known: Names
    wrong: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    labels: frozenset[str] = frozenset()

    def of(self, node: Any) -> frozenset[str]:
        """The labels that the result of a node of the syntax has."""
        match node:
            case promql.VectorSelector():
                return self._selected(node)
            case promql.MatrixSelector():
                return self.of(node.vector_selector)
            case promql.AggregateExpr():
                return self._aggregated(node)
            case promql.BinaryExpr():
                left, right = self.of(node.lhs), self.of(node.rhs)
                return left or right
            case promql.Call():
                return frozenset[str]().union(*map(self.of, node.args)) - self._spent(node)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self.of(node.expr)
            case promql.NumberLiteral() | promql.StringLiteral():
                return frozenset()
            case _:
                raise NotImplementedError(type(node).__name__)

    def _selected(self, node: promql.VectorSelector) -> frozenset[str]:
        self.names.add(node.name)
        if node.name not in self.known:
            self.wrong.append(f"there is no metric {node.name}")
            return frozenset()
        labels = self.known[node.name] | ADDED
        for matcher in node.matchers.matchers:
            if matcher.name not in labels:
                self.wrong.append(f"{node.name} has no label {matcher.name}")
            self._chosen(node.name, matcher)
        return labels

    def _chosen(self, name: str, matcher: promql.Matcher) -> None:
        """Of a label with a fixed set of values, only those can be asked for."""
        choices = metrics.CHOICES.get(matcher.name, ())
        if choices and not matcher.value.startswith("$"):
            for value in matcher.value.split("|"):
                if value not in choices:
                    self.wrong.append(f"{matcher.name} of {name} is never {value!r}")

    def _aggregated(self, node: promql.AggregateExpr) -> frozenset[str]:
        inside = self.of(node.expr)
        if node.modifier is None:
            return inside if "topk" in node.prettify()[:5] else frozenset()
        listed = frozenset(node.modifier.labels)
        self.wrong += [f"nothing to aggregate has a label {lost}" for lost in listed - inside]
        by = node.modifier.type == promql.AggModifierType.By
        return listed & inside if by else inside - listed

    @staticmethod
    def _spent(node: promql.Call) -> frozenset[str]:
        return frozenset({"le"}) if node.func.name == "histogram_quantile" else frozenset()


def read(expression: str, known: Names) -> Reading:
    """An expression held against the names known; `ValueError` where it cannot be parsed."""
    reading = Reading({**known, **OWN})
    tree = promql.parse(expression.replace("$__rate_interval", "5m"))
    reading.labels = reading.of(tree)
    return reading


@cache
def rules() -> list[dict[str, Any]]:
    """Every rule, in the order of the file."""
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """The rules that alert."""
    return [rule for rule in rules() if "alert" in rule]


def panels() -> Iterator[tuple[str, str]]:
    """The title of a panel and one of its expressions, for each of them."""
    for row in ROWS.values():
        for panel in row:
            for expression, _ in panel.queries:
                yield panel.title, expression


def recorded(known: Names) -> dict[str, frozenset[str]]:
    """The names known, and those that the rules record from them."""
    names = dict(known)
    for rule in rules():
        if "record" in rule:
            names[rule["record"]] = read(rule["expr"], names).labels - ADDED
    return names
