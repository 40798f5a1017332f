"""The image, as far as it can be known without a container engine: words, files, packages."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from deployments.install import by_machine, closure
from helm.tools import ROOT
from tests.helm.charts import pods

TEXT = (ROOT / "Dockerfile").read_text()
IGNORED = (ROOT / ".dockerignore").read_text().splitlines()


def instructions() -> list[tuple[str, str]]:
    """`(WORD, rest)` of every instruction, its lines joined and its comments gone."""
    bare = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", bare)
    return [
        (w, rest) for w, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def told(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def runs() -> list[str]:
    return [re.sub(r"^--mount=\S+\s*", "", rest) for rest in told("RUN")]


def sent(path: str) -> bool:
    """Whether .dockerignore lets it into the build: the last line that fits decides."""
    allowed = True
    for line in IGNORED:
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and fnmatch(path, pattern):
            allowed = line.startswith("!")
    return allowed


def test_hadolint_finds_nothing() -> None:
    linter = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([linter, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_shell_is_shell() -> None:
    for script in runs():
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)


def test_what_is_copied_is_there_and_sent() -> None:
    copied = [w for rest in told("COPY") if "--from" not in rest for w in rest.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists()
        assert sent(path)


def test_nothing_else_is_sent() -> None:
    for path in (".git", ".venv", "tests", "loadtests", "helm", "tenants.yaml", "key.txt"):
        assert not sent(path)


def test_what_the_package_is_built_from_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = " ".join(told("COPY")).split()
    assert {"pyproject.toml", project["readme"], *project["license-files"]} <= set(copied)
    packages = {name.split("*")[0] for name in ("serving*", "deployments*")}
    assert packages <= set(copied)


@pytest.mark.parametrize(("build", "torch"), [("cpu", "cpu"), ("gpu", "cuda")])
def test_the_build_argument_chooses_torch_and_vllm(
    build: str, torch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script's own `case` and the installer's own words, for each build."""
    choice, _, install = runs()[0].partition("esac")
    script = f"BUILD={build}\n{choice}esac\necho $torch"
    assert subprocess.check_output(["sh", "-c", script], text=True).strip() == torch
    monkeypatch.setenv("POLYVEC_TORCH", torch)
    words = re.search(r"python deployments/install.py ([\w ]+)", install)
    assert words is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert closure(project, by_machine(words.group(1).split())) >= {"demo", build}


def test_another_build_is_refused_with_the_choices() -> None:
    script = "BUILD=tpu\n" + runs()[0].partition("esac")[0] + "esac"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cpu or gpu" in done.stderr


def test_the_image_has_what_kuberay_asks_for() -> None:
    """Its command is bash, and the readiness of a worker is `wget … | grep success`."""
    installed = set(runs()[1].partition("install")[2].split())
    assert {"bash", "ca-certificates", "grep", "wget"} <= installed


def test_ray_and_python_are_found_from_a_login_shell_too() -> None:
    line = re.search(r"echo '(.+?)' > /etc/profile.d/polyvec.sh", runs()[1])
    assert line is not None
    path = subprocess.check_output(
        ["sh", "-c", f"PATH=/bin\n{line.group(1)}\necho $PATH"], text=True
    )
    [env] = told("ENV")
    assert path.startswith("/opt/polyvec/.venv/bin:/bin")
    assert "PATH=/opt/polyvec/.venv/bin:$PATH" in env


def test_nobody_is_root_and_the_chart_has_the_same_user() -> None:
    user, group = told("USER")[-1].split(":")
    for pod in pods({}).values():
        context = pod["spec"]["securityContext"]
        assert (str(context["runAsUser"]), str(context["runAsGroup"])) == (user, group)
    assert f"--uid {user}" in runs()[1]
    homes = {
        e["value"]
        for p in pods({}).values()
        for e in p["spec"]["containers"][0]["env"]
        if e["name"] == "HOME"
    }
    assert homes == {told("WORKDIR")[-1]}


def test_the_base_is_a_version_and_of_a_python_that_polyvec_takes() -> None:
    [base] = {rest for rest in told("ARG") if rest.startswith("PYTHON")}
    assert re.fullmatch(r"PYTHON=3\.11\.\d+-slim-bookworm", base)
    assert all(rest.startswith("python:${PYTHON}") for rest in told("FROM"))
