"""polyvec/values.schema.json: the hand-written schema, with the definitions that others own.

Polyvec's config is described by its classes, so that a key that the service does not know is
refused by `helm install`; what Kubernetes takes as it is, by the schema of its API.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deployments.config import AppConfig

__all__ = ["OWN_KEYS", "schema_text"]

SOURCE = Path(__file__).with_name("schema.yaml")
KUBERNETES = "kubernetes-json-schema/v1.35.0-local-strict/_definitions.json"

# What the chart writes into the config itself, by the class of the block.
OWN_KEYS: Mapping[str, tuple[str, ...]] = {
    "AppConfig": ("models", "tenants"),
    "GatewayConfig": ("resources",),
    "LedgerConfig": ("url", "spool"),
    "ModelConfig": ("resources",),
    "PreprocessorConfig": ("resources",),
    "QuotasConfig": ("store",),
}


def schema_text() -> str:
    """The whole file."""
    schema = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    known = _of_config() | _of_kubernetes()
    schema["definitions"] = {name: known[name] for name in sorted(_needed(schema, known))}
    return _lines(schema, depth=2) + "\n"


def _of_config() -> dict[str, Any]:
    schema = AppConfig.model_json_schema()
    found: dict[str, Any] = schema.pop("$defs") | {"AppConfig": schema}
    found["ModelConfig"]["required"] = []  # the id is the model's key where it is not said
    for name, keys in OWN_KEYS.items():
        for key in keys:
            found[name]["properties"].pop(key, None)
    return {name: _plain(block) for name, block in found.items()}


def _of_kubernetes() -> dict[str, Any]:
    file = importlib.resources.files("kubernetes_validate").joinpath(KUBERNETES)
    return {name: _plain(block) for name, block in json.loads(file.read_text())["$defs"].items()}


def _plain(block: Any, names: bool = False) -> Any:
    """Draft 7, and only what decides: no prose, no defaults. `names`: the keys are properties'."""
    if isinstance(block, list):
        return [_plain(one) for one in block]
    if not isinstance(block, dict):
        return block
    prose = () if names else ("title", "description", "default", "format")
    plain = {
        key: _plain(value, key == "properties" and not names)
        for key, value in block.items()
        if key not in prose and (names or not key.startswith("x-"))
    }
    if not names and isinstance(plain.get("$ref"), str):
        plain["$ref"] = plain["$ref"].replace("#/$defs/", "#/definitions/")
    return plain


def _lines(block: Any, depth: int, indent: str = "") -> str:
    """JSON with a line for each key, down to `depth`: a change of one definition is one line."""
    if depth == 0 or not isinstance(block, dict):
        return json.dumps(block, ensure_ascii=False)
    inner = indent + " "
    lines = [f"{inner}{json.dumps(k)}: {_lines(v, depth - 1, inner)}" for k, v in block.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _needed(schema: Mapping[str, Any], known: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    waiting = list(_references(schema))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _references(known[name])
    return found


def _references(block: Any) -> Iterator[str]:
    if isinstance(block, dict):
        if isinstance(block.get("$ref"), str):
            yield block["$ref"].rpartition("/")[2]
        block = list(block.values())
    if isinstance(block, list):
        for one in block:
            yield from _references(one)
