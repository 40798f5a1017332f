"""The chart as helm renders it, and the CRDs that it is held to: for the tests in this folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import Any

import celpy
import jsonschema
import pytest
import yaml

from helm.build import CHART, HelmRefused, case, helm
from helm.overlays import CASES, Object
from helm.tools import HELM_4, ROOT, Tool

__all__ = [
    "EVERY_CASE",
    "Crd",
    "cluster",
    "containers",
    "crd",
    "effect",
    "manifests",
    "merged",
    "named",
    "pods",
    "refusal",
    "serve_config",
    "service",
    "text",
    "values_of",
]

# What no case switches on, beside the cases.
EVERYTHING: Object = {
    "image": {"digest": "sha256:" + "0" * 64, "pullSecrets": ["registry"]},
    "ledger": {"url": "postgresql://db/polyvec", "spool": {"hostPath": "/var/lib/polyvec"}},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "serve": {"grpc": {"enabled": True}},
    "grpcRoute": {"enabled": True, "parentRefs": [{"name": "public"}]},
    "probes": {"readiness": {"httpGet": {"path": "/-/healthz", "port": "serve"}}},
    "serviceAccount": {"annotations": {"cloud/role": "polyvec"}},
    "modelCache": {"type": "image", "image": {"reference": "registry.example.com/m@sha256:0"}},
    "metrics": {
        "podMonitor": {"enabled": True, "keep": "ray_.*"},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True, "annotations": {"folder": "Polyvec"}},
    },
    "ray": {
        "authMode": "disabled",
        "initializingTimeout": "30m",
        "env": [{"name": "A", "value": "b"}],
    },
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own"}}],
}
# The cases of ci/ are files; a case here is the values themselves.
VALUES = {"defaults": {}, "everything": EVERYTHING}
EVERY_CASE = [*VALUES, *CASES.values()]


def values_of(name: str) -> Object:
    """The values of a case, by its name."""
    if name in VALUES:
        return VALUES[name]
    return yaml.safe_load(case(name).read_text())  # type: ignore[no-any-return]


def merged(values: Object, other: Object) -> Object:
    """The values with others over them, as helm merges several files."""
    both = dict(values)
    for key, value in other.items():
        old = both.get(key)
        both[key] = (
            merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return both


def text(values: Object, tool: Tool = HELM_4, kube: str = "1.35.0") -> str:
    """What `helm template` prints with these values; `HelmRefused` where it refuses them."""
    outcome = _outcome(json.dumps(values, sort_keys=True), tool, kube)
    if isinstance(outcome, HelmRefused):
        raise outcome
    return outcome


@cache
def _outcome(values: str, tool: Tool, kube: str) -> str | HelmRefused:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(values)
        file.flush()
        words = ["template", "polyvec", str(CHART), "--kube-version", kube, "--values", file.name]
        try:
            return helm(tool, *words)
        except HelmRefused as refused:
            return refused


def refusal(values: Object, kube: str = "1.35.0") -> str:
    """What helm says against these values; a failure where it says nothing."""
    with pytest.raises(HelmRefused) as refused:
        text(values, kube=kube)
    return str(refused.value)


def manifests(values: Object) -> list[Object]:
    """Every object that the chart renders, its test among them. Shared: not to be changed."""
    return _parsed(text(values))


@cache
def _parsed(rendered: str) -> list[Object]:
    return [one for one in yaml.load_all(rendered, yaml.CSafeLoader) if one]


def named(values: Object, kind: str, end: str = "") -> Object:
    """The one object of that kind, of a name with that end."""
    [found] = [
        one
        for one in manifests(values)
        if one["kind"] == kind and one["metadata"]["name"].endswith(end)
    ]
    return found


def service(values: Object) -> Object:
    """The spec of the RayService."""
    return named(values, "RayService")["spec"]  # type: ignore[no-any-return]


def cluster(values: Object) -> Object:
    """The spec of the cluster in it."""
    return service(values)["rayClusterConfig"]  # type: ignore[no-any-return]


def serve_config(values: Object) -> Object:
    """The Serve config in it."""
    return yaml.safe_load(service(values)["serveConfigV2"])  # type: ignore[no-any-return]


def pods(values: Object) -> dict[str, Object]:
    """The pod templates of the cluster, by the group's name; the head's is `head`."""
    spec = cluster(values)
    groups = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]} | groups


def containers(values: Object) -> Iterator[Object]:
    """Every container: of the cluster's pods, and of the test."""
    for pod in [*pods(values).values(), named(values, "Pod")]:
        yield from pod["spec"]["containers"]


class _Loader(yaml.CSafeLoader):
    """`=` is a value of an enumeration in one of the CRDs, and a type of its own to PyYAML."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)


class Crd:
    """A CustomResourceDefinition, as strict as an API server with `fieldValidation=Strict`."""

    def __init__(self, definition: Object) -> None:
        versions = {one["name"]: one for one in definition["spec"]["versions"]}
        self._schemas = {name: one["schema"]["openAPIV3Schema"] for name, one in versions.items()}
        self._strict = {
            name: jsonschema.Draft202012Validator(_strict(schema))
            for name, schema in self._schemas.items()
        }

    def wrong(self, one: Object) -> list[str]:
        """What is wrong with an object: its structure first, else its rules."""
        version = one["apiVersion"].rpartition("/")[2]
        errors = [f"{e.json_path}: {e.message}" for e in self._strict[version].iter_errors(one)]
        schema = self._schemas[version]
        return errors or list(_broken_rules(schema, _defaulted(schema, one), "$"))


@cache
def crd(file: str) -> Crd:
    """A CRD of ../shared/crds; a skipped test where there are none."""
    path = ROOT.parent / "shared" / "crds" / file
    if not path.exists():
        pytest.skip(f"there is no {path}: CRDs are not in this repository")
    return Crd(yaml.load(path.read_text(), _Loader))


def _strict(schema: Any, top: bool = True) -> Any:
    if isinstance(schema, list):
        return [_strict(one, False) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {key: _strict(value, False) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        strict["properties"] = {k: _strict(v, False) for k, v in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get(
            "x-kubernetes-preserve-unknown-fields"
        ):
            strict["additionalProperties"] = False
    if top:
        strict["properties"]["metadata"] = {"type": "object"}
    return strict


def _defaulted(schema: Object, one: Any) -> Any:
    """What an API server's rules see: the defaults filled in."""
    if isinstance(one, dict):
        known = schema.get("properties", {})
        other = schema.get("additionalProperties")
        one = {key: inner["default"] for key, inner in known.items() if "default" in inner} | one
        inner = {key: known.get(key, other if isinstance(other, dict) else {}) for key in one}
        return {key: _defaulted(inner[key], value) for key, value in one.items()}
    if isinstance(one, list):
        return [_defaulted(schema.get("items", {}), value) for value in one]
    return one


def _broken_rules(schema: Object, one: Any, path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], json.dumps(one)):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(one, dict):
        for key, value in one.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if isinstance(inner, dict):
                yield from _broken_rules(inner, value, f"{path}.{key}")
    elif isinstance(one, list) and "items" in schema:
        for index, value in enumerate(one):
            yield from _broken_rules(schema["items"], value, f"{path}[{index}]")


@cache
def _holds(rule: str, one: str) -> bool:
    value = celpy.json_to_cel(json.loads(one))
    return bool(_program(rule).evaluate({"self": value}))


@cache
def _program(rule: str) -> Any:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


# What KubeRay leaves out when it compares two specs of a cluster.
_OF_A_GROUP = ("replicas", "minReplicas", "maxReplicas")
_OF_A_POD = ("tolerations", "schedulingGates")


def _compared(spec: Object) -> Object:
    """As `GenerateHashWithoutReplicasAndWorkersToDelete` of ray-operator/controllers/ray/utils."""
    copy: Object = json.loads(json.dumps(spec))
    copy.pop("upgradeStrategy", None)
    for group in [copy["headGroupSpec"], *copy["workerGroupSpecs"]]:
        group["template"]["spec"] = _without(group["template"]["spec"], _OF_A_POD)
    copy["workerGroupSpecs"] = [_without(g, _OF_A_GROUP) for g in copy["workerGroupSpecs"]]
    return copy


def _without(block: Object, keys: tuple[str, ...]) -> Object:
    return {key: value for key, value in block.items() if key not in keys}


def effect(before: Object, after: Object) -> str:
    """What KubeRay 1.7 does to a running cluster when the spec of its RayService is changed.

    `new cluster`, `in place` (groups were appended), `not applied` (only what is not compared has
    changed), or `none`: `shouldUpdateCluster` and `shouldPrepareNewCluster` in
    ray-operator/controllers/ray/rayservice_controller.go at v1.7.0.
    """
    if before == after:
        return "none"
    old, new = _compared(before), _compared(after)
    if old == new:
        return "not applied"
    kept = new["workerGroupSpecs"][: len(old["workerGroupSpecs"])]
    return "in place" if old == new | {"workerGroupSpecs": kept} else "new cluster"
