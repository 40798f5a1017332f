"""What an upgrade does to a running cluster: a second fleet of GPUs only where it must."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import yaml

from helm.build import CHART, helm
from helm.tools import HELM_4
from tests.helm.charts import cluster, effect, merged, serve_config, values_of

FLEET = values_of("gpu-fleet")


def fleet(**change: Any) -> dict[str, Any]:
    return merged(FLEET, change)


def model(**change: Any) -> dict[str, Any]:
    return fleet(models={"v4": change})


NEW = {"config": {"id": "BAAI/bge-m3", "engine": "vllm", "gpus_per_replica": 1}}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # Of Serve: deployed into the cluster that there is.
        (model(config={"batch_tokens": 65536}), "none"),
        (fleet(config={"limits": {"inputs": 64}}), "none"),
        (fleet(config={"gateway": {"flights": 4}}), "none"),
        (fleet(config={"prices": {"currency": "EUR"}}), "none"),
        (model(maxPods=20, config={"replicas": {"max": 15}}), "none"),
        # Not of the cluster at all.
        (fleet(httpRoute={"hostnames": ["a.example.com"]}), "none"),
        (fleet(metrics={"podMonitor": {"interval": "10s"}}), "none"),
        (fleet(networkPolicy={"internet": True}), "none"),
        (fleet(podDisruptionBudget={"enabled": False}), "none"),
        (fleet(service={"annotations": {"a": "b"}}), "none"),
        (fleet(tests={"existingSecret": "other"}), "none"),
        (fleet(ray={"clusterDeletionDelaySeconds": 5, "initializingTimeout": "30m"}), "none"),
        # A model more, at the end.
        (fleet(models={"z": NEW | {"order": 3}}), "in place"),
        (fleet(models={"v6": NEW | {"order": 2}}), "in place"),
        # What KubeRay hands to no running cluster.
        (model(maxPods=32), "not applied"),
        (model(config={"replicas": {"min": 3}}), "not applied"),
        (model(enabled=False), "not applied"),
        (fleet(head={"tolerations": [{"key": "a", "operator": "Exists"}]}), "not applied"),
        # A second cluster.
        (fleet(models={"a": NEW}), "new cluster"),
        (fleet(models={"v5-small": None}), "new cluster"),
        (model(config={"gpus_per_replica": 2}), "new cluster"),
        (fleet(image={"tag": "0.2.0-gpu"}), "new cluster"),
        (fleet(serve={"maxRequestSeconds": 140}), "new cluster"),
        (fleet(gateway={"annotations": {"a": "b"}}), "new cluster"),
    ],
)
def test_an_upgrade_does_to_the_cluster_what_the_readme_says(
    values: dict[str, Any], expected: str
) -> None:
    assert effect(cluster(FLEET), cluster(values)) == expected


def test_a_change_of_the_config_reaches_serve() -> None:
    assert serve_config(model(config={"batch_tokens": 65536})) != serve_config(FLEET)
    enabled = serve_config(FLEET)["applications"][0]["args"]["models"]
    left = serve_config(model(enabled=False))["applications"][0]["args"]["models"]
    assert len(left) == len(enabled) - 1


def test_a_new_version_of_the_chart_keeps_the_cluster(tmp_path: Any) -> None:
    other = shutil.copytree(CHART, tmp_path / "polyvec")
    chart = (other / "Chart.yaml").read_text()
    (other / "Chart.yaml").write_text(chart.replace("\nversion: 0.1.0", "\nversion: 0.2.0"))
    specs = []
    for path in (CHART, other):
        rendered = helm(HELM_4, "template", "polyvec", str(path), "--kube-version", "1.35.0")
        [one] = [
            one
            for one in yaml.load_all(rendered, yaml.CSafeLoader)
            if one and one["kind"] == "RayService"
        ]
        specs.append(one)
    assert specs[0]["metadata"]["labels"] != specs[1]["metadata"]["labels"]
    assert effect(*(one["spec"]["rayClusterConfig"] for one in specs)) == "none"


def test_the_name_of_the_release_is_the_only_thing_of_it_that_pods_know() -> None:
    labels = cluster({})["headGroupSpec"]["template"]["metadata"]["labels"]
    assert labels == {
        "app.kubernetes.io/name": "polyvec",
        "app.kubernetes.io/instance": "polyvec",
        "app.kubernetes.io/component": "head",
    }
