"""The rules are valid, fire when they must and only then, and say what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.observability.expressions import (
    ADDED,
    FOLDER,
    HERE,
    Names,
    alerts,
    read,
    recorded,
    rules,
)

SCENARIOS = sorted(HERE.glob("*_test.yml"))
BOOK = "deployments/observability/RUNBOOK.md"


def name(rule: dict[str, Any]) -> str:
    return str(rule.get("alert") or rule["record"])


def run(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def sections() -> set[str]:
    headings = re.findall(r"^## (.+)$", (FOLDER / "RUNBOOK.md").read_text(), re.MULTILINE)
    return {heading.lower().replace(" ", "-") for heading in headings}


def test_promtool_takes_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml", cwd=FOLDER)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_must_and_only_then(promtool: str, scenario: Path) -> None:
    run(promtool, "test", "rules", scenario.name, cwd=HERE)


def test_every_alert_fires_in_some_scenario() -> None:
    told = "\n".join(scenario.read_text() for scenario in SCENARIOS)
    expected = set(re.findall(r'alertname="(\w+)", severity="(\w+)"', told))
    assert {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()} == expected


def test_every_expression_names_what_there_is(known: Names) -> None:
    wrong = [
        f"{name(rule)}: {line}" for rule in rules() for line in read(rule["expr"], known).wrong
    ]
    assert not wrong, "\n".join(wrong)


def test_every_alert_says_how_urgent_it_is_what_it_means_and_where_to_read_on() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]
        assert rule["annotations"]["runbook_url"] == f"{BOOK}#{rule['alert'].lower()}"


def test_what_an_alert_says_of_its_labels_is_there_to_say(known: Names) -> None:
    for rule in alerts():
        used = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert used <= read(rule["expr"], known).labels, rule["alert"]


def test_the_runbook_has_a_section_for_every_alert_and_no_other() -> None:
    assert sections() == {rule["alert"].lower() for rule in alerts()}


def test_the_runbook_links_to_its_own_sections() -> None:
    text = (FOLDER / "RUNBOOK.md").read_text()
    assert set(re.findall(r"\]\(#(.+?)\)", text)) <= sections()


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("rate(ray_polyvec_request_total[5m])", "no metric ray_polyvec_request_total"),
        ("rate(polyvec_requests_total[5m])", "no metric polyvec_requests_total"),
        ('ray_polyvec_requests_total{state="200"}', "no label state"),
        ("sum by (modell) (ray_polyvec_queue_tokens)", "has a label modell"),
        ('ray_polyvec_request_duration_seconds_count{outcome="fail"}', "never 'fail'"),
        ('ray_polyvec_request_duration_seconds_count{outcome=~"ok|fail"}', "never 'fail'"),
        ("sum by (le) (rate(ray_polyvec_batch_tokens_sum[5m]))", "has a label le"),
        ("absent(slo:polyvec_requests:rate7m)", "no metric slo:"),
    ],
)
def test_a_name_that_is_not_there_is_seen(known: Names, expression: str, wrong: str) -> None:
    assert any(wrong in line for line in read(expression, known).wrong)


def test_an_expression_that_is_none_is_seen(known: Names) -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        read("sum by (model (up)", known)


def test_a_recorded_name_has_the_labels_that_are_left(known: Names) -> None:
    names = recorded(known)
    assert names["slo:polyvec_requests:rate5m"] == {"model", "service_class", "outcome"}
    assert names["slo:polyvec_failed:ratio_rate5m"] == {"model", "service_class"}
    assert not names["polyvec:billed_requests:increase6h"] - ADDED
