"""The parts of the chart, one by one: groups, budgets, doors, caches, metrics, the test."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from helm.tools import ROOT
from tests.helm.charts import (
    EVERY_CASE,
    cluster,
    manifests,
    named,
    pods,
    service,
    values_of,
)

FLEET, TRIAL = values_of("gpu-fleet"), values_of("cpu-trial")
EVERYTHING, HIGH = values_of("everything"), values_of("high-availability")
every_case = pytest.mark.parametrize("name", EVERY_CASE)


def group(values: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [g for g in cluster(values)["workerGroupSpecs"] if g["groupName"] == name]
    return found  # type: ignore[no-any-return]


def resources(values: dict[str, Any], name: str) -> dict[str, Any]:
    return pods(values)[name]["spec"]["containers"][0]["resources"]  # type: ignore[no-any-return]


@every_case
def test_the_head_has_no_work_and_no_traffic(name: str) -> None:
    assert cluster(values_of(name))["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert service(values_of(name))["excludeHeadPodFromServeSvc"] is True


@every_case
def test_what_kuberay_refuses_is_not_there(name: str) -> None:
    """From ray-operator/controllers/ray/utils/validation.go, where no schema says it."""
    spec = cluster(values_of(name))
    assert "upgradeStrategy" not in spec
    assert "headService" not in spec["headGroupSpec"]
    for one in spec["workerGroupSpecs"]:
        assert one["minReplicas"] <= one["maxReplicas"]
        assert one["rayStartParams"] == {}  # beside `resources`, num-cpus and the like are refused
        assert one["template"]["spec"]["restartPolicy"] == "Never"
    environment = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    assert not {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD"} & {one["name"] for one in environment}


def test_a_pod_has_the_gpus_of_its_replicas_and_tolerates_their_taint() -> None:
    assert group(FLEET, "model-v4")["resources"] == {"CPU": "4", "GPU": "1", "model-v4": "1"}
    half = group(FLEET, "model-v5-small")
    assert half["resources"] == {"CPU": "4", "GPU": "1", "model-v5-small": "2"}
    assert (half["minReplicas"], half["maxReplicas"]) == (0, 8)  # for 12 + 3
    assert resources(FLEET, "model-v5-small")["limits"]["nvidia.com/gpu"] == 1
    [tolerated] = half["template"]["spec"]["tolerations"]
    assert tolerated["key"] == "nvidia.com/gpu"


def test_a_pod_without_gpus_asks_for_none() -> None:
    assert "nvidia.com/gpu" not in resources(FLEET, "gateway")["limits"]
    assert "tolerations" not in group(FLEET, "gateway")["template"]["spec"]


def test_without_the_autoscaler_the_number_of_pods_is_said() -> None:
    assert cluster(TRIAL)["enableInTreeAutoscaling"] is False
    assert [g["replicas"] for g in cluster(TRIAL)["workerGroupSpecs"]] == [1, 1]
    assert all("replicas" not in g for g in cluster(FLEET)["workerGroupSpecs"])


def test_the_autoscaler_is_the_second_and_can_write() -> None:
    options = cluster({})["autoscalerOptions"]
    assert options["version"] == "v2"
    assert {"/tmp", "/home/polyvec"} == {m["mountPath"] for m in options["volumeMounts"]}


def test_the_clusters_state_and_the_quotas_are_on_two_servers() -> None:
    options = cluster(HIGH)["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "gcs-redis:6379"
    assert options["redisPassword"]["valueFrom"]["secretKeyRef"]["name"] == "gcs-redis"
    # With a namespace of ours, KubeRay would bring back the state of an older cluster.
    assert "externalStorageNamespace" not in options
    assert "gcsFaultToleranceOptions" not in cluster({})


@every_case
def test_a_budget_is_an_integer_below_its_groups_least_pods(name: str) -> None:
    values = values_of(name)
    least = {g["groupName"]: g["minReplicas"] for g in cluster(values)["workerGroupSpecs"]}
    found = [one for one in manifests(values) if one["kind"] == "PodDisruptionBudget"]
    for one in found:
        end = one["metadata"]["name"].removeprefix("polyvec-")
        assert one["spec"]["minAvailable"] == (1 if end == "head" else least[end] - 1)
        labels = pods(values)[end]["metadata"]["labels"]
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()
    expected = {name for name, pods_ in least.items() if pods_ > 1} | {"head"}
    assert len(found) == (0 if name == "cpu-trial" else len(expected))


def test_the_tenants_are_a_directory_that_the_kubelet_changes() -> None:
    for name, pod in pods({}).items():
        mounts = pod["spec"]["containers"][0]["volumeMounts"]
        found = [m for m in mounts if m["name"] == "tenants"]
        assert bool(found) == (name == "gateway")
        assert all("subPath" not in mount for mount in mounts)
        assert not any(key.startswith("checksum") for key in pod["metadata"].get("annotations", {}))


def test_only_gateways_have_the_passwords() -> None:
    for name, pod in pods(FLEET).items():
        names = {one["name"] for one in pod["spec"]["containers"][0]["env"]}
        found = names & {"POLYVEC_QUOTAS_URL", "POLYVEC_LEDGER_URL"}
        assert len(found) == (2 if name == "gateway" else 0)


def test_the_head_hands_out_the_ports_of_the_service() -> None:
    ports = {
        p["name"]: p["containerPort"]
        for p in pods(EVERYTHING)["head"]["spec"]["containers"][0]["ports"]
    }
    assert (ports["serve"], ports["serve-grpc"]) == (8000, 9000)
    assert (ports["metrics"], ports["as-metrics"], ports["dash-metrics"]) == (8080, 44217, 44227)
    by_name = {p["name"]: p for p in service(EVERYTHING)["serveService"]["spec"]["ports"]}
    assert by_name["serve-grpc"]["appProtocol"] == "kubernetes.io/h2c"


@pytest.mark.parametrize(
    ("values", "kind", "port"),
    [(FLEET, "HTTPRoute", 8000), (EVERYTHING, "GRPCRoute", 9000)],
)
def test_a_route_leads_to_the_service_that_kuberay_makes(
    values: dict[str, Any], kind: str, port: int
) -> None:
    [rule] = named(values, kind)["spec"]["rules"]
    [backend] = rule["backendRefs"]
    assert backend == {"name": service(values)["serveService"]["metadata"]["name"], "port": port}


def test_an_ingress_leads_there_too() -> None:
    [rule] = named(HIGH, "Ingress")["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert path["backend"]["service"] == {"name": "polyvec-serve-svc", "port": {"name": "serve"}}


@pytest.mark.parametrize(
    ("cache", "source", "offline"),
    [
        ({"type": "baked"}, None, "1"),
        (
            {"type": "claim", "claim": {"existingClaim": "m"}},
            {"claimName": "m", "readOnly": True},
            "1",
        ),
        (
            {"type": "claim", "claim": {"create": True}},
            {"claimName": "polyvec-models", "readOnly": True},
            "1",
        ),
        ({"type": "hub"}, None, "0"),
        (
            {"type": "hub", "claim": {"existingClaim": "m"}},
            {"claimName": "m", "readOnly": False},
            "0",
        ),
    ],
)
def test_models_come_from_where_they_are_said_to(
    cache: dict[str, Any], source: object, offline: str
) -> None:
    for pod in pods({"modelCache": cache}).values():
        found = [v for v in pod["spec"]["volumes"] if v["name"] == "models"]
        assert [v["persistentVolumeClaim"] for v in found] == ([source] if source else [])
        env = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
        assert env["HF_HUB_OFFLINE"] == offline
        on_claim = cache["type"] == "hub" and source is not None
        assert env["HF_HOME"].startswith("/models" if on_claim else "/cache")


def test_an_oci_artefact_is_a_read_only_volume_of_every_pod() -> None:
    for pod in pods(EVERYTHING).values():
        [volume] = [v for v in pod["spec"]["volumes"] if v["name"] == "models"]
        assert volume["image"]["reference"].startswith("registry.example.com/m@sha256:")


def test_a_claim_of_the_charts_outlives_the_release() -> None:
    values = {"modelCache": {"type": "claim", "claim": {"create": True}}}
    claim = named(values, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_network_policy_leaves_the_holes_that_are_needed() -> None:
    spec = named(FLEET, "NetworkPolicy")["spec"]
    mine = {"app.kubernetes.io/name": "polyvec", "app.kubernetes.io/instance": "polyvec"}
    assert spec["podSelector"]["matchLabels"] == mine
    among, front, operator, metrics = spec["ingress"]
    assert among["from"] == [{"podSelector": {"matchLabels": mine}}]
    assert [p["port"] for p in front["ports"]] == [8000]
    assert [p["port"] for p in operator["ports"]] == [8265, 8000]
    assert "kuberay-operator" in json.dumps(operator["from"])
    assert [p["port"] for p in metrics["ports"]] == [8080, 44217, 44227]
    among, dns, api, stores = spec["egress"]
    assert among["to"] == [{"podSelector": {"matchLabels": mine}}]
    assert {p["port"] for p in dns["ports"]} == {53}
    assert [to["ipBlock"]["cidr"] for to in api["to"]] == ["10.96.0.1/32", "10.0.0.0/28"]
    assert [p["port"] for p in stores["ports"]] == [6379, 5432]


def test_the_monitor_scrapes_the_three_exporters_of_ray() -> None:
    monitor = named(EVERYTHING, "PodMonitor")["spec"]
    assert monitor["jobLabel"] == "app.kubernetes.io/name"  # the rules look for polyvec in the job
    assert [e["port"] for e in monitor["podMetricsEndpoints"]] == [
        "metrics",
        "as-metrics",
        "dash-metrics",
    ]
    dropped = [r for e in monitor["podMetricsEndpoints"] for r in e["metricRelabelings"]]
    assert not any("WorkerId" in str(rule.get("regex")) for rule in dropped)


def test_the_rules_and_the_dashboard_are_those_of_the_observability_room() -> None:
    room = ROOT / "deployments" / "observability"
    rules = named(EVERYTHING, "PrometheusRule")["spec"]
    assert rules == yaml.safe_load((room / "rules.yml").read_text())
    dashboard = named(EVERYTHING, "ConfigMap", "-dashboard")["data"]["polyvec.json"]
    assert json.loads(dashboard) == json.loads((room / "dashboard.json").read_text())


@every_case
def test_the_smoke_test_is_no_part_of_the_cluster(name: str) -> None:
    values = values_of(name)
    pod = named(values, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    labels = pod["metadata"]["labels"]
    assert "app.kubernetes.io/instance" not in labels
    url = pod["spec"]["containers"][0]["command"][-1]
    assert url == f"http://{service(values)['serveService']['metadata']['name']}:8000"
    for one in manifests(values):
        if one["kind"] == "NetworkPolicy":
            allowed = one["spec"]["ingress"][1]["from"][0]["podSelector"]["matchLabels"]
            assert allowed.items() <= labels.items()


def test_an_incremental_upgrade_leaves_the_service_to_kuberay() -> None:
    upgrade = {"type": "NewClusterWithIncrementalUpgrade", "gatewayClassName": "istio"}
    values = {"ray": {"upgrade": upgrade}}
    spec = service(values)
    assert "serveService" not in spec
    assert spec["upgradeStrategy"]["clusterUpgradeOptions"] == {
        "gatewayClassName": "istio",
        "intervalSeconds": 30,
        "maxSurgePercent": 100,
        "stepSizePercent": 10,
    }
    assert not any(one["kind"] == "Pod" for one in manifests(values))
