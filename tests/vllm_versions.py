"""Does our engine fit other versions of vLLM? Their own annotations are asked, nothing is run.

    python -m tests.vllm_versions 0.24.0 0.28.0

Fetches each version's wheel (280 MB) and lets mypy read our engine beside its sources: a name that
is gone, an argument that is no more, a method that is overridden otherwise is an error. What only
a machine with a GPU can tell, it does not. Exits 1 where a version does not fit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

__all__ = ["fits"]

_ROOT = Path(__file__).parents[1]
_OURS = ("serving/engines/vllm.py", "serving/engines/_vllm")
# `misc` and the rest: classes of torch's that mypy does not look at here, and metrics that are
# ours in place of prometheus-client's, which is what that class attribute of vLLM's is for.
_CONFIG = """
[mypy]
mypy_path = {sources}
ignore_missing_imports = True
follow_imports = silent
check_untyped_defs = True
disable_error_code = assignment, import-untyped, index, misc

[mypy-vllm.*]
ignore_errors = True

[mypy-ray.*,peft.*,torch.*,transformers.*]
follow_imports = skip
"""


def fits(version: str) -> tuple[bool, str]:
    """Whether it does, and what mypy says."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", name]
        subprocess.run([*fetch, f"vllm=={version}"], check=True)
        [wheel] = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder, [one for one in packed.namelist() if one.endswith(".py")])
        config = folder / "mypy.ini"
        config.write_text(_CONFIG.format(sources=folder))
        check = [sys.executable, "-m", "mypy", f"--config-file={config}", "--cache-dir=/dev/null"]
        done = subprocess.run([*check, *_OURS], cwd=_ROOT, capture_output=True, text=True)
    return done.returncode == 0, done.stdout


if __name__ == "__main__":
    fit = True
    for version in sys.argv[1:]:
        one, said = fits(version)
        fit &= one
        sys.stdout.write(f"vllm {version}: {'fits' if one else said}\n")
        sys.stdout.flush()
    sys.exit(not fit)
