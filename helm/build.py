"""Everything that is made from something else: the chart's schema, README and files, and k8s/.

python -m helm.build            write it all, then lint, render and package with both helms
python -m helm.build --check    say what is not as it would be written
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from helm.overlays import BASE, CASES, base_files, overlay_files
from helm.readme import CHART, readme_text
from helm.schema import schema_text
from helm.tools import HELM_3, HELM_4, ROOT, Tool, Untooled

__all__ = ["HelmRefused", "case", "generated", "helm", "render"]

# What other rooms own and a chart must carry itself.
COPIES = {
    "files/rules.yml": ROOT / "deployments" / "observability" / "rules.yml",
    "files/dashboard.json": ROOT / "deployments" / "observability" / "dashboard.json",
}


class HelmRefused(Exception):
    """`HelmRefused(words)`: what helm said."""


def helm(tool: Tool, *words: str) -> str:
    """What helm prints; `HelmRefused` where it ends with an error."""
    with tempfile.TemporaryDirectory() as home:
        homes = {f"HELM_{kind}_HOME": home for kind in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            [str(tool.path()), *words],
            capture_output=True,
            text=True,
            env={"PATH": os.environ.get("PATH", ""), "HOME": home, **homes},
        )
    if done.returncode:
        raise HelmRefused(f"{done.stderr}{done.stdout}")
    return done.stdout


def case(name: str) -> Path:
    """The values of a case in the chart's ci/."""
    return CHART / "ci" / f"{name}-values.yaml"


@cache
def render(values: Path | None = None, tool: Tool = HELM_4) -> str:
    """The chart's manifests without its test, as `helm template` gives them."""
    files = ["--values", str(values)] if values else []
    return helm(tool, "template", "polyvec", str(CHART), "--skip-tests", *_CLUSTER, *files)


_CLUSTER = ("--kube-version", "1.35.0")


def generated() -> Iterator[tuple[Path, str]]:
    """Every file that is written here, and its text. A chart's files come first: k8s/ has them."""
    yield CHART / "values.schema.json", schema_text()
    yield CHART / "README.md", readme_text()
    for name, source in COPIES.items():
        if source.exists():
            yield CHART / name, source.read_text(encoding="utf-8")
    base = render()
    yield from base_files(base)
    for overlay, name in CASES.items():
        yield from overlay_files(overlay, base, render(case(name)))


def main(arguments: list[str]) -> int:
    """The command; 0 where all is well, 1 where something is stale or refused."""
    try:
        return _check() if arguments == ["--check"] else _build()
    except (HelmRefused, Untooled) as words:
        sys.stderr.write(f"{words}\n")
        return 1


def _check() -> int:
    stale = [p for p, text in generated() if not p.exists() or p.read_text("utf-8") != text]
    for path in stale:
        sys.stderr.write(f"{path.relative_to(ROOT)} is stale: make chart\n")
    return 1 if stale else 0


def _build() -> int:
    for path, text in generated():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for tool in (HELM_3, HELM_4):
        for name in CASES.values():
            helm(tool, "lint", "--strict", str(CHART), "--values", str(case(name)))
        with tempfile.TemporaryDirectory() as folder:
            helm(tool, "package", str(CHART), "--destination", folder)
        sys.stdout.write(f"helm {tool.version} lints and packages the chart\n")
    sys.stdout.write(f"{BASE.relative_to(ROOT)} and {len(CASES)} overlays are written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
