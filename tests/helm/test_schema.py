"""The schema of the values: strict at every level, in Polyvec's own words and in Kubernetes'."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from deployments.config import AppConfig
from helm.build import CHART, HelmRefused
from helm.schema import OWN_KEYS
from helm.tools import HELM_3
from tests.helm.charts import refusal, text

SCHEMA = json.loads((CHART / "values.schema.json").read_text())

# By path: what may hold anything, and why.
OPEN = {
    "global": "Helm's own, of a parent chart",
    "extraObjects[]": "whole objects, held to no schema of ours",
    "#ModelConfig.engine_options": "vLLM's own options, by its names",
}


def blocks(schema: Any, path: str) -> Any:
    """Every schema of an object in a schema, by its path."""
    if isinstance(schema, list):
        for one in schema:
            yield from blocks(one, path)
    if not isinstance(schema, dict):
        return
    kind = schema.get("type", [])
    if "object" in ([kind] if isinstance(kind, str) else kind):
        yield path, schema
    for key, value in schema.get("properties", {}).items():
        yield from blocks(value, f"{path}.{key}".lstrip("."))
    for key in ("items", "additionalProperties", "anyOf", "oneOf", "allOf"):
        yield from blocks(schema.get(key), f"{path}[]" if key == "items" else path)


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_every_object_says_what_it_may_hold() -> None:
    roots = [("", SCHEMA)] + [(f"#{k}", v) for k, v in SCHEMA["definitions"].items()]
    found = [one for path, root in roots for one in blocks(root, path)]
    loose = {path for path, block in found if block.get("additionalProperties") in (None, True)}
    assert loose == set(OPEN)
    assert len(found) > 80


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"gatway": {}}, "gatway"),
        ({"config": {"gatway": {}}}, "gatway"),
        ({"config": {"gateway": {"replicas": {"minimum": 1}}}}, "minimum"),
        ({"config": {"limits": {"inputs": 0}}}, "inputs"),
        ({"config": {"models": []}}, "models"),
        ({"config": {"quotas": {"store": "redis://r"}}}, "store"),
        ({"models": {"minilm": {"gpus": 1}}}, "gpus"),
        ({"models": {"minilm": {"config": {"replicas": {"max": "4"}}}}}, "max"),
        ({"models": {"Mini_LM": {}}}, "Mini_LM"),
        ({"image": {"build": "tpu"}}, "build"),
        ({"image": {"digest": "sha256:abc"}}, "digest"),
        ({"ray": {"upgrade": {"type": "Rolling"}}}, "type"),
        ({"gateway": {"tolerations": [{"keys": "a"}]}}, "keys"),
        ({"gateway": {"affinity": {"nodeAffinitty": {}}}}, "nodeAffinitty"),
        ({"gateway": {"resources": {"limit": {}}}}, "limit"),
        ({"head": {"order": 1}}, "order"),
        ({"podSecurityContext": {"runAsRoot": True}}, "runAsRoot"),
        ({"probes": {"readiness": {"httpget": {}}}}, "httpget"),
        ({"modelCache": {"claim": {"accessModes": ["RWX"]}}}, "accessModes"),
        ({"networkPolicy": {"extraEgress": [{"port": 1}]}}, "port"),
        ({"httpRoute": {"parentRefs": [{"gateway": "a"}]}}, "gateway"),
        ({"metrics": {"serviceMonitor": {}}}, "serviceMonitor"),
        ({"scratch": {"tmpSizeLimit": "20 GB"}}, "tmpSizeLimit"),
    ],
)
def test_a_value_that_is_not_known_is_named(values: dict[str, Any], path: str) -> None:
    said = refusal(values)
    assert "schema" in said
    assert path in said


def test_helm_3_is_as_strict() -> None:
    with pytest.raises(HelmRefused, match="gatway"):
        text({"config": {"gatway": {}}}, HELM_3)


def test_what_the_chart_writes_itself_are_keys_of_polyvecs() -> None:
    """Else a key that was renamed there would be written by the chart, and could be said too."""
    of_polyvec = AppConfig.model_json_schema()
    blocks_of = of_polyvec["$defs"] | {"AppConfig": of_polyvec}
    for name, keys in OWN_KEYS.items():
        assert set(keys) - {"resources"} <= blocks_of[name]["properties"].keys()
        assert not set(keys) & SCHEMA["definitions"][name]["properties"].keys()
