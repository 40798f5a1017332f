"""Every combination that no cluster could run is refused, with the value's name and the way out."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest

from helm.build import CHART, HelmRefused, helm
from helm.tools import HELM_4
from tests.helm.charts import merged, refusal, text, values_of

GPU = {"image": {"build": "gpu"}}
INCREMENTAL = {"type": "NewClusterWithIncrementalUpgrade", "gatewayClassName": "istio"}
CLOSED = {"enabled": True, "apiServerCIDRs": ["10.0.0.1/32"]}
ROUTE = {"enabled": True, "parentRefs": [{"name": "public"}]}


def model(**config: Any) -> dict[str, Any]:
    return {"models": {"minilm": {"config": config}}}


def gateways(most: int) -> dict[str, Any]:
    return {"config": {"gateway": {"replicas": {"min": 1, "max": most}}}}


CASES: list[tuple[dict[str, Any], str]] = [
    ({"fullnameOverride": "9-lives"}, "fullnameOverride: .*begins with a letter"),
    ({"image": {"tag": "latest"}}, "image.tag: latest"),
    (
        {"models": {"m": {"config": {"id": "all-MiniLM-L6-v2"}}}},
        "another model is called all-MiniLM",
    ),
    (model(gpus_per_replica=1), "gpus_per_replica: the image is built for CPUs"),
    (GPU | model(engine="vllm"), "gpus_per_replica: vllm of a GPU image needs a GPU"),
    (GPU | model(gpus_per_replica=1.5), "gpus_per_replica: Ray gives a part of one GPU"),
    (
        {"models": {"minilm": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}},
        "models.minilm.resources: nvidia.com/gpu follows",
    ),
    (model(placement="per_task"), "models.minilm: with placement per_task .*minPods and maxPods"),
    ({"models": {"minilm": {"enabled": False}}}, "models: none is enabled"),
    (model(replicas={"min": 5, "max": 4}), "model-minilm: replicas.min is above replicas.max"),
    (
        {"config": {"gateway": {"replicas": {"min": 9, "max": 4}}}},
        "gateway: replicas.min is above replicas.max",
    ),
    ({"models": {"minilm": {"minPods": 6}}}, "model-minilm: minPods is above maxPods"),
    ({"models": {"minilm": {"maxPods": 4}}}, "4 pods of 1 have no place for 4 replicas and 1 more"),
    (
        {"models": {"minilm": {"maxPods": 3, "config": {"replicas": {"max_surge_percent": 0}}}}},
        "3 pods of 1 have no place for 4 replicas\n",
    ),
    ({"gateway": {"maxPods": 2}}, "2 pods of 1 have no place for 4 replicas and 1 more while"),
    ({"ray": {"autoscaler": {"enabled": False}}}, "gateway: .* minPods must be maxPods"),
    (
        {"preprocessor": {"enabled": False}, "config": {"preprocessor": {"text": "deployment"}}},
        "preprocessor.enabled: config.preprocessor.text deployment",
    ),
    ({"tenants": {"existingSecret": ""}}, "tenants.existingSecret: .*needs tenants"),
    (
        {"ray": {"upgrade": INCREMENTAL}, "ingress": {"enabled": True, "hosts": ["a"]}},
        "ingress.enabled: with incremental upgrades",
    ),
    ({"ray": {"upgrade": INCREMENTAL}, "httpRoute": ROUTE}, "httpRoute.enabled: with incremental"),
    ({"ingress": {"enabled": True}}, "ingress.hosts: name at least one"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs: name at least one"),
    ({"grpcRoute": ROUTE}, "grpcRoute.enabled: serve.grpc.enabled is false"),
    (
        {"serve": {"grpc": {"enabled": True}}, "ray": {"upgrade": INCREMENTAL}},
        "serve.grpc.enabled: an incremental upgrade routes HTTP",
    ),
    (
        {"config": {"limits": {"request_timeout_s": 120}}},
        "serve.maxRequestSeconds: must be above config.limits.request_timeout_s, which is 120",
    ),
    ({"serve": {"maxRequestSeconds": 50}}, "serve.maxRequestSeconds: .* which is 60"),
    ({"terminationGracePeriodSeconds": 159}, "terminationGracePeriodSeconds: must be 40 above"),
    (
        {"quotas": {"store": "redis://r", "existingSecret": "s"}},
        "quotas.store: the Secret s has the URL already",
    ),
    ({"quotas": {"store": "memory://"}}, "quotas.store: memory:// .*there may be 4"),
    ({"quotas": {"store": "redis://u:p@r"}}, "quotas.store: a password belongs in a Secret"),
    (
        {"quotas": {"store": "redis://r:6379/1"}, "gcs": {"redisAddress": "r:6379"}},
        "gcs.redisAddress: .*may forget and evict.* use two servers",
    ),
    ({"gcs": {"existingSecret": "s"}}, "gcs.redisAddress: there is a password, and no address"),
    (
        {"ledger": {"url": "postgresql://p", "existingSecret": "s"}},
        "ledger.url: the Secret s has the URL already",
    ),
    ({"ledger": {"url": "sqlite:///"}}, "ledger.url: each of 4 gateways .*ledger.existingClaim"),
    ({"ledger": {"url": "postgresql://u:p@h/d"}}, "ledger.url: a password belongs in a Secret"),
    ({"config": {"ledger": {"flush_s": 1}}}, "config.ledger: there is no ledger"),
    (
        {"ray": {"upgrade": INCREMENTAL, "autoscaler": {"enabled": False}}},
        "ray.upgrade.type: an incremental upgrade needs ray.autoscaler.enabled",
    ),
    (
        {"ray": {"upgrade": INCREMENTAL | {"gatewayClassName": ""}}},
        "ray.upgrade.gatewayClassName: an incremental upgrade needs one",
    ),
    (
        {"ray": {"upgrade": INCREMENTAL | {"maxSurgePercent": 5}}},
        "ray.upgrade.stepSizePercent: is above maxSurgePercent",
    ),
    ({"modelCache": {"type": "claim"}}, "modelCache.claim: say existingClaim, or create"),
    (
        {"modelCache": {"type": "hub", "claim": {"create": True, "existingClaim": "m"}}},
        "modelCache.claim: existingClaim and create are two",
    ),
    ({"modelCache": {"claim": {"create": True}}}, "modelCache.claim: type baked mounts no claim"),
    ({"modelCache": {"type": "image"}}, "modelCache.image.reference: name the artefact"),
    ({"networkPolicy": {"enabled": True}}, "networkPolicy.apiServerCIDRs: without the API server"),
    (
        {"networkPolicy": CLOSED, "quotas": {"store": "rediss://r"}},
        "networkPolicy.extraEgress: Redis and PostgreSQL",
    ),
    (
        {"networkPolicy": CLOSED, "ledger": {"existingSecret": "s"}},
        "networkPolicy.extraEgress: Redis and PostgreSQL",
    ),
    (
        {"networkPolicy": CLOSED, "modelCache": {"type": "hub"}},
        "networkPolicy.internet: modelCache.type hub",
    ),
    (
        {"networkPolicy": CLOSED, "httpRoute": ROUTE},
        "networkPolicy.ingressFrom: there is a route from outside",
    ),
    (
        {"networkPolicy": CLOSED, "metrics": {"podMonitor": {"enabled": True}}},
        "networkPolicy.monitoringFrom: metrics.podMonitor.enabled",
    ),
]


@pytest.mark.parametrize(
    ("values", "said"), CASES, ids=lambda one: one if isinstance(one, str) else ""
)
def test_a_combination_that_cannot_run_is_refused(values: dict[str, Any], said: str) -> None:
    assert re.search(said, refusal(values)), refusal(values)


def test_image_volumes_are_refused_where_kubernetes_would_drop_them() -> None:
    cache = {"modelCache": {"type": "image", "image": {"reference": "r/m"}}}
    assert "this is v1.32.9" in refusal(cache, kube="1.32.9")
    assert "mountPath: /models" in text(cache, kube="1.33.0")


def test_everything_that_is_wrong_is_said_at_once() -> None:
    values = merged({"tenants": {"existingSecret": ""}}, {"ingress": {"enabled": True}})
    said = refusal(values)
    assert "tenants.existingSecret" in said
    assert "ingress.hosts" in said


def test_every_guard_has_a_case() -> None:
    """Each sentence is met by a case above; three want another Kubernetes or a broken chart."""
    guards = (CHART / "templates" / "_guards.tpl").read_text()
    sentences = re.findall(
        r"^(?!\{\{)(?=\S)(?=.*: )(.+)$", guards.partition("polyvec.guards.names")[2], re.M
    )
    said = "\n".join(refusal(values) for values, _ in CASES)
    unmet = []
    for sentence in sentences:
        pattern = ".*".join(re.escape(part) for part in re.split(r"\{\{.*?\}\}", sentence))
        if not re.search(pattern, said):
            unmet.append(sentence.partition(":")[0])
    expected = {"modelCache.type", "metrics.prometheusRule.enabled", "metrics.dashboards.enabled"}
    assert set(unmet) == expected
    assert len(sentences) >= 40


@pytest.mark.parametrize(
    "values",
    [
        merged(gateways(1), {"quotas": {"store": "memory://"}}),
        merged(gateways(1), {"ledger": {"url": "sqlite:///"}}),
        {"ledger": {"url": "sqlite:///", "existingClaim": "ledger"}},
        {"quotas": {"store": "redis://r:6380"}, "gcs": {"redisAddress": "r:638"}},
        {"models": {"minilm": {"config": {"placement": "per_task"}, "minPods": 2, "maxPods": 12}}},
        {"models": {"minilm": {"enabled": False}, "m": {"config": {"id": "bge-m3"}}}},
        GPU | model(gpus_per_replica=0.5),
        {"ray": {"upgrade": INCREMENTAL}},
        values_of("everything"),
    ],
)
def test_what_can_run_is_not_refused(values: dict[str, Any]) -> None:
    assert "kind: RayService" in text(values)


@pytest.mark.parametrize("name", ["rules.yml", "dashboard.json"])
def test_a_chart_without_its_files_says_so(name: str, tmp_path: Any) -> None:
    chart = shutil.copytree(CHART, tmp_path / "polyvec")
    (chart / "files" / name).unlink()
    part = "prometheusRule" if name == "rules.yml" else "dashboards"
    with pytest.raises(HelmRefused, match=f"metrics.{part}.enabled: .* without files/{name}"):
        helm(HELM_4, "template", "pv", str(chart), "--set", f"metrics.{part}.enabled=true")
