"""What the chart renders, for every case: alike under both helms, valid, and without privileges."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from helm.build import CHART, case, helm
from helm.overlays import CASES
from helm.tools import HELM_3, HELM_4
from tests.helm.charts import (
    EVERY_CASE,
    Crd,
    cluster,
    containers,
    crd,
    manifests,
    merged,
    named,
    pods,
    service,
    text,
    values_of,
)

RAY_SERVICE = "ray.io_rayservices.yaml"
CRDS = {
    "RayService": RAY_SERVICE,
    "PodMonitor": "podmonitors.monitoring.coreos.com.yaml",
    "PrometheusRule": "prometheusrules.monitoring.coreos.com.yaml",
    "HTTPRoute": "gw_httproutes.yaml",
    "GRPCRoute": "gw_grpcroutes.yaml",
}
every_case = pytest.mark.parametrize("name", EVERY_CASE)


@every_case
def test_helm_3_and_4_render_the_same(name: str) -> None:
    values = values_of(name)
    assert text(values, HELM_3) == text(values, HELM_4)


@pytest.mark.parametrize("tool", [HELM_3, HELM_4], ids=lambda tool: tool.version)
def test_helm_lints_and_packages_it(tool: Any, tmp_path: Any) -> None:
    for name in CASES.values():
        helm(tool, "lint", "--strict", str(CHART), "--values", str(case(name)))
    helm(tool, "package", str(CHART), "--destination", str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["polyvec-0.1.0.tgz"]


def test_the_notes_name_the_secrets_that_somebody_has_to_make() -> None:
    words = ["install", "pv", str(CHART), "--dry-run=client", "--values", str(case("gpu-fleet"))]
    notes = helm(HELM_4, *words).partition("NOTES:")[2]
    for secret in ("polyvec-tenants", "polyvec-quotas", "polyvec-ledger", "gcs-redis"):
        assert f"  {secret} (" in notes


@every_case
def test_kubernetes_knows_every_field_of_its_own_kinds(name: str) -> None:
    known = 0
    for one in manifests(values_of(name)):
        if one["kind"] not in CRDS:
            kubernetes_validate.validate(one, "1.35", strict=True)
            known += 1
    for template in pods(values_of(name)).values():
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        kubernetes_validate.validate(pod, "1.35", strict=True)
    assert known >= 2


@every_case
def test_the_crds_allow_it_and_their_rules_hold(name: str) -> None:
    for one in manifests(values_of(name)):
        if one["kind"] in CRDS:
            assert crd(CRDS[one["kind"]]).wrong(one) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.excludeHeadPodFromServeService", True, "excludeHeadPodFromServeService"),
        ("spec.rayClusterConfig.enableAutoscaling", True, "enableAutoscaling"),
        ("spec.rayClusterConfig.autoscalerOptions.version", "v3", "'v3' is not one of"),
        ("spec.managedBy", "someone", "managedBy"),
    ],
)
def test_a_wrong_ray_service_would_be_seen(path: str, value: object, said: str) -> None:
    change: Any = value
    for key in reversed(path.split(".")):
        change = {key: change}
    one = merged(named({}, "RayService"), change)
    wrong = crd(RAY_SERVICE).wrong(one)
    assert len(wrong) == 1
    assert said in wrong[0]


def test_a_broken_rule_of_a_crd_would_be_seen() -> None:
    rule = {"rule": "self.min <= self.max", "message": "min is above max"}
    inner = {"type": "object", "x-kubernetes-validations": [rule]}
    schema = {"type": "object", "properties": {"apiVersion": {"type": "string"}, "spec": inner}}
    inner["properties"] = {"min": {"type": "integer"}, "max": {"type": "integer"}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": schema}}
    own = Crd({"spec": {"versions": [version]}})
    assert own.wrong({"apiVersion": "v1", "spec": {"min": 1, "max": 2}}) == []
    assert own.wrong({"apiVersion": "v1", "spec": {"min": 3, "max": 2}}) == [
        "$.spec: min is above max"
    ]


@every_case
def test_no_container_may_do_more_than_it_must(name: str) -> None:
    values = values_of(name)
    for pod in [*pods(values).values(), named(values, "Pod")]:
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    own = [c["securityContext"] for c in containers(values)]
    options = cluster(values).get("autoscalerOptions")
    for context in [*own, *([options["securityContext"]] if options else [])]:
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


@every_case
def test_only_the_head_speaks_to_the_api_server(name: str) -> None:
    """KubeRay gives the head an account that may change its own cluster, and nobody else one."""
    for group, pod in pods(values_of(name)).items():
        if group == "head":
            assert "serviceAccountName" not in pod["spec"]
        else:
            assert pod["spec"]["automountServiceAccountToken"] is False
            assert pod["spec"]["serviceAccountName"] == "polyvec"


@every_case
def test_what_is_written_lies_on_a_volume(name: str) -> None:
    for pod in pods(values_of(name)).values():
        [container] = pod["spec"]["containers"]
        mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
        volumes = {v["name"] for v in pod["spec"]["volumes"]}
        assert {m["name"] for m in mounts.values()} == volumes
        written = {e["value"] for e in container["env"] if e.get("value", "").startswith("/")}
        for path in written | {"/tmp"}:
            above = [mount for mount in mounts if f"{path}/".startswith(f"{mount}/")]
            assert above, f"{path} is on the read-only root"
            assert not mounts[max(above, key=len)].get("readOnly")


@every_case
def test_an_image_is_named_by_a_version_or_its_content(name: str) -> None:
    for container in containers(values_of(name)):
        _, at, digest = container["image"].partition("@sha256:")
        tag = container["image"].rpartition(":")[2]
        assert (at and len(digest) == 64) or tag in ("0.1.0-cpu", "0.1.0-gpu")


@every_case
def test_no_secret_is_written_out(name: str) -> None:
    for one in manifests(values_of(name)):
        assert one["kind"] != "Secret"
    for container in containers(values_of(name)):
        for variable in container["env"]:
            secret = any(word in variable["name"] for word in ("KEY", "TOKEN", "PASS", "URL"))
            assert not secret or "secretKeyRef" in variable["valueFrom"]


def test_a_long_name_is_cut_to_what_kuberay_allows() -> None:
    values = {"fullnameOverride": "a" * 46 + "-b"}
    assert named(values, "RayService")["metadata"]["name"] == "a" * 46
    assert len(service(values)["serveService"]["metadata"]["name"]) <= 63
