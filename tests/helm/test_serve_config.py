"""The Serve config in the RayService: Serve knows every key, and Polyvec its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from deployments.config import AppConfig, GatewayConfig, LimitsConfig, parse_config
from deployments.grpc import grpc_options
from deployments.local import Address, environment
from tests.helm.charts import EVERY_CASE, cluster, pods, serve_config, values_of

every_case = pytest.mark.parametrize("name", EVERY_CASE)

# The chart says in which pods a part may lie, by a Ray resource that only those have.
HAS_RESOURCES = "resources" in GatewayConfig.model_fields
# Of a local node's environment: why a pod has not the same.
LOCAL_ONLY = {
    "POLYVEC_BIND": "a pod is reached by the others",
    "POLYVEC_FRONT": "a pod's door is Serve's own",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "loopback",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "loopback",
    "RAY_AUTH_MODE": "ray.authMode; KubeRay sets it for tokens",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "an idle laptop's saving",
    "REPORTER_UPDATE_INTERVAL_MS": "an idle laptop's saving",
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "a driver may want to see what workers say",
    "LOG_NAME_UPDATE_INTERVAL_S": "a driver may want to see what workers say",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "a Service forgets a pod more slowly",
}


def unknown(value: Any, model: type[BaseModel], path: str = "") -> list[str]:
    """The keys that a model does not know; Serve's drop them without a word."""
    found = []
    for key, inner in value.items():
        if key not in model.model_fields:
            found.append(f"{path}{key}")
            continue
        for part in _models(model.model_fields[key].annotation):
            for one in inner if isinstance(inner, list) else [inner]:
                found += unknown(one, part, f"{path}{key}.") if isinstance(one, dict) else []
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]


def args_of(name: str) -> dict[str, Any]:
    [application] = serve_config(values_of(name))["applications"]
    return application["args"]  # type: ignore[no-any-return]


@every_case
def test_serve_takes_it_and_knows_every_key(name: str) -> None:
    config = serve_config(values_of(name))
    ServeDeploySchema.model_validate(config)
    assert unknown(config, ServeDeploySchema) == []


def test_a_key_that_serve_drops_would_be_seen() -> None:
    config = serve_config({})
    config["applications"][0]["deployments"] = [{"name": "Gateway", "num_replica": 3}]
    assert unknown(config, ServeDeploySchema) == ["applications.deployments.num_replica"]


@every_case
def test_the_application_is_there(name: str) -> None:
    [application] = serve_config(values_of(name))["applications"]
    module, _, builder = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), builder))


@pytest.mark.xfail(
    not HAS_RESOURCES,
    reason="deployments/config has no `resources` yet",
    strict=True,
    raises=Exception,
)
@every_case
def test_polyvec_takes_the_arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(args_of(name))
    assert config.tenants == "/etc/polyvec/tenants/tenants.yaml"
    assert config.gateway.resources == {"gateway": 1}  # type: ignore[attr-defined]


@every_case
def test_polyvec_takes_the_arguments_but_for_where_parts_lie(name: str) -> None:
    args = args_of(name)
    blocks = [args["gateway"], *args["models"], args.get("preprocessor", {})]
    asked = [unit for block in blocks for unit in block.pop("resources", {})]
    config = parse_config(args)
    assert isinstance(config, AppConfig)
    groups = cluster(values_of(name))["workerGroupSpecs"]
    assert set(asked) == {group["groupName"] for group in groups}


@every_case
def test_a_part_finds_the_resource_that_it_asks_for_in_its_own_pods_alone(name: str) -> None:
    groups = cluster(values_of(name))["workerGroupSpecs"]
    for group in groups:
        units = group["resources"].keys() - {"CPU", "GPU", "memory"}
        assert units == {group["groupName"]}
        assert all(isinstance(amount, str) for amount in group["resources"].values())


def test_replicas_and_pods_have_room_for_each_other() -> None:
    for model in args_of("gpu-fleet")["models"]:
        [unit] = model["resources"]
        groups = cluster(values_of("gpu-fleet"))["workerGroupSpecs"]
        [group] = [one for one in groups if one["groupName"] == unit]
        places = group["maxReplicas"] * int(group["resources"][unit])
        assert places >= model["replicas"]["max"]
        each = int(group["resources"][unit])
        assert int(group["resources"]["GPU"]) >= model["gpus_per_replica"] * each
        assert int(group["resources"]["CPU"]) >= model["cpus_per_replica"] * each


def test_grpc_is_what_polyvecs_own_door_is_told() -> None:
    values = {"serve": {"grpc": {"enabled": True}}}
    assert serve_config(values)["grpc_options"] == grpc_options(9000)
    assert "grpc_options" not in serve_config({})


def test_an_url_with_a_password_is_read_from_the_environment() -> None:
    args = args_of("gpu-fleet")
    assert args["quotas"]["store"] == "${POLYVEC_QUOTAS_URL}"
    assert args["ledger"]["url"] == "${POLYVEC_LEDGER_URL}"


def test_the_config_is_passed_on_and_a_disabled_model_is_not() -> None:
    values = {
        "config": {"limits": {"inputs": 7}, "quotas": {"shadow": True}},
        "quotas": {"store": "redis://r"},
        "models": {
            "minilm": {"enabled": False},
            "b": {"config": {"id": "BAAI/bge-m3"}},
            "bge-m3": {},
        },
    }
    [application] = serve_config(values)["applications"]
    args = application["args"]
    assert args["limits"] == {"inputs": 7}
    assert args["quotas"] == {"shadow": True, "store": "redis://r"}
    assert [model["id"] for model in args["models"]] == ["BAAI/bge-m3", "bge-m3"]


@every_case
def test_a_pod_has_the_environment_of_a_local_node(name: str, tmp_path: Path) -> None:
    """Ray and Serve read it at import: what speeds up `polyvec serve` must be here too."""
    local = environment(tmp_path, Address())
    own = {k for k, v in local.items() if str(tmp_path) in v or k.endswith(("_PORT", "_ENABLED"))}
    own = {k for k in own if "HAPROXY" in k or "FALLBACK" in k} | {"RAY_SERVE_HAPROXY_NBTHREAD"}
    wanted = {k: v for k, v in local.items() if k not in own and k not in LOCAL_ONLY}
    assert "RAY_SERVE_ENABLE_HA_PROXY" in wanted
    for pod in pods(values_of(name)).values():
        env = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
        assert env.items() >= wanted.items()


def test_the_charts_guess_of_the_longest_request_is_polyvecs_default() -> None:
    template = Path("helm/polyvec/templates/_guards.tpl")
    root = Path(__file__).resolve().parents[2]
    default = LimitsConfig().request_timeout_s
    assert f'"request_timeout_s" {default:g} .Values.config' in (root / template).read_text()


def test_the_defaults_that_the_chart_repeats_are_polyvecs() -> None:
    text = (Path(__file__).resolve().parents[2] / "helm/polyvec/templates/_groups.tpl").read_text()
    [model] = AppConfig().models
    assert (model.replicas.min, model.replicas.max) == (1, 1)
    assert '"replicas" "min" 1 ' in text and '"replicas" "max" 1 ' in text
    assert f'"max_surge_percent" {model.replicas.max_surge_percent} ' in text
    assert f'"cpus_per_replica" {model.cpus_per_replica:g} ' in text
    assert f'"cpus" {GatewayConfig().cpus:g} ' in text
    assert model.gpus == 0 and '"gpus_per_replica" 0 ' in text
