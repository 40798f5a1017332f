"""k8s/: kustomize makes of it what helm makes of the chart, and its commands can be typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from deployments.cli import main
from helm.build import CHART, case, render
from helm.overlays import BASE, CASES, K8S, objects, released
from helm.tools import HELM_4, KUBECTL, ROOT

QUICKSTART = K8S / "README.md"
WORKFLOW = K8S / "e2e-kind.yaml"


def kustomized(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [KUBECTL.path(), "kustomize", str(folder)], capture_output=True, text=True, check=True
    )
    return objects(done.stdout)


def expected(rendered: str) -> dict[str, Any]:
    return {name: released(one) for name, one in objects(rendered).items()}


def test_the_base_is_the_chart_with_its_defaults() -> None:
    assert kustomized(BASE) == expected(render())


@pytest.mark.parametrize("overlay", CASES)
def test_an_overlay_is_the_chart_with_the_values_of_its_case(overlay: str) -> None:
    found = kustomized(K8S / "overlays" / overlay)
    wanted = expected(render(case(CASES[overlay])))
    own = K8S / "overlays" / overlay / "own"
    extra = kustomized(own) if own.exists() else {}
    assert found == wanted | extra


def test_every_overlay_has_its_case() -> None:
    assert {folder.name for folder in (K8S / "overlays").iterdir()} == set(CASES)


def test_the_redis_servers_are_valid_and_evict_nothing() -> None:
    found = kustomized(K8S / "overlays" / "redis-ha" / "own")
    for one in found.values():
        kubernetes_validate.validate(one, "1.35", strict=True)
    gcs = yaml.dump(found["statefulset-gcs-redis"])
    assert "--maxmemory-policy noeviction" in gcs.replace("\n", " ")
    assert "--appendonly yes" in gcs
    words = found["deployment-quotas-redis"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"


def commands() -> list[str]:
    """Every command of the quickstart, and of the workflow."""
    quick = re.findall(r"^\$ (.+?)(?: &)?$", QUICKSTART.read_text(), re.M)
    return [*quick, *(line for script in scripts() for line in lines(script))]


def scripts() -> list[str]:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def lines(script: str) -> list[str]:
    return re.sub(r"\\\n\s*", " ", script).strip().splitlines()


def test_the_shell_of_the_workflow_is_shell() -> None:
    assert len(scripts()) >= 6
    for script in scripts():
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_the_files_that_the_commands_name_are_there() -> None:
    named = {w for c in commands() for w in re.findall(r"(?:k8s|helm)/[\w./-]+", c)}
    assert {"k8s/kind.yaml", "k8s/overlays/kind", "helm/polyvec"} <= named
    for path in named:
        assert (ROOT / path).exists(), path


def test_helm_and_kubectl_know_the_options_of_the_commands() -> None:
    seen = 0
    for command in commands():
        for tool, binary in (("helm", HELM_4), ("kubectl", KUBECTL)):
            for use in re.findall(rf"(?:^|[(;&|]\s*){tool} (.+?)(?:\)|;|&&|\|\||$)", command):
                parts = shlex.split(use, posix=False)
                verb = [
                    part for part in parts[:3] if part in ("create", "secret", "generic")
                ] or parts[:1]
                told = subprocess.run(
                    [binary.path(), *verb, "--help"],
                    capture_output=True,
                    text=True,
                    env={"PATH": os.environ["PATH"], "HOME": "/tmp"},
                ).stdout
                for option in re.findall(r"(?<=\s)(--?[a-z-]+)", " " + use):
                    assert re.search(rf"(?<![\w-]){option}\b", told), f"{tool} {verb}: {option}"
                    seen += 1
    assert seen > 15


def test_polyvec_knows_the_commands_that_make_keys(tmp_path: Path, capsys: Any) -> None:
    [words] = {
        re.search(r"polyvec (keys new \S+ --create --file) ", command).group(1)  # type: ignore[union-attr]
        for command in commands()
        if "polyvec keys" in command and " e2e " not in command
    }
    assert main([*words.split(), str(tmp_path / "tenants.yaml")]) == 0
    assert (tmp_path / "tenants.yaml").exists()
    assert len(capsys.readouterr().out.strip().splitlines()) == 1


def test_the_workflow_says_that_it_has_not_been_run() -> None:
    assert "HAS NEVER BEEN RUN" in WORKFLOW.read_text()
    assert "not run this ourselves" in QUICKSTART.read_text()
    assert "has not been installed into a cluster" in (CHART / "README.md").read_text()
