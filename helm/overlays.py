"""k8s/ from the chart: a base as it is rendered, and each case as patches upon it.

An overlay is what turns the base into the chart rendered with that case's values: a JSON patch for
each object that differs, and the objects that the base lacks. What an overlay has beside that, by
hand, lies in its folder `own/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["BASE", "CASES", "base_files", "differences", "objects", "overlay_files", "released"]

K8S = Path(__file__).resolve().parent.parent / "k8s"
BASE = K8S / "base"

# An overlay's folder, and the case in the chart's ci/ that it equals.
CASES: Mapping[str, str] = {
    "kind": "cpu-trial",
    "gpu": "gpu-fleet",
    "redis-ha": "high-availability",
}

_HEAD = "# Made by `make chart` from helm/polyvec; change that.\n"

Object = dict[str, Any]


def objects(manifests: str) -> dict[str, Object]:
    """The objects in YAML, by `kind-name`, in order of that."""
    found = [one for one in yaml.load_all(manifests, yaml.CSafeLoader) if one]
    return dict(sorted((f"{o['kind'].lower()}-{o['metadata']['name']}", o) for o in found))


def base_files(rendered: str) -> Iterator[tuple[Path, str]]:
    """The base: a file an object, and the kustomization."""
    every = objects(rendered)
    for name, one in every.items():
        yield BASE / f"{name}.yaml", _HEAD + _yaml(released(one))
    resources = {"resources": [f"{name}.yaml" for name in every]}
    yield BASE / "kustomization.yaml", _HEAD + _yaml(_KIND | resources)


def overlay_files(overlay: str, base: str, rendered: str) -> Iterator[tuple[Path, str]]:
    """An overlay: patches, further objects, and the kustomization."""
    folder = K8S / "overlays" / overlay
    before, after = objects(base), objects(rendered)
    patches: list[Object] = []
    for name, one in before.items():
        target = {"kind": one["kind"], "name": one["metadata"]["name"]}
        if name not in after:
            patches.append({"patch": _yaml(_deletion(one)), "target": target})
        elif steps := list(differences(released(one), released(after[name]))):
            yield folder / f"{name}.patch.yaml", _HEAD + _yaml(steps)
            patches.append({"path": f"{name}.patch.yaml", "target": target})
    resources = ["../../base"]
    for name in after.keys() - before.keys():
        yield folder / f"{name}.yaml", _HEAD + _yaml(released(after[name]))
        resources.append(f"{name}.yaml")
    resources += ["own"] if (folder / "own").exists() else []
    kustomization = _KIND | {"resources": sorted(resources), "patches": patches}
    yield folder / "kustomization.yaml", _HEAD + _yaml(kustomization)


_KIND = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}


def released(one: Object) -> Object:
    """The object without what says that helm released it: nothing here does."""
    copy = yaml.safe_load(_yaml(one))
    for labels in _labels(copy):
        labels.pop("helm.sh/chart", None)
        if labels.get("app.kubernetes.io/managed-by") == "Helm":
            labels["app.kubernetes.io/managed-by"] = "kustomize"
    return copy  # type: ignore[no-any-return]


def _labels(block: Any) -> Iterator[Object]:
    if isinstance(block, dict):
        if isinstance(block.get("labels"), dict):
            yield block["labels"]
        block = list(block.values())
    for one in block if isinstance(block, list) else []:
        yield from _labels(one)


def _deletion(one: Object) -> Object:
    head = {"apiVersion": one["apiVersion"], "kind": one["kind"]}
    return {"$patch": "delete"} | head | {"metadata": {"name": one["metadata"]["name"]}}


def differences(before: Any, after: Any, path: str = "") -> Iterator[Object]:
    """The steps of a JSON patch (RFC 6902) from one value to another."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            here = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if key not in after:
                yield {"op": "remove", "path": here}
            elif key not in before:
                yield {"op": "add", "path": here, "value": after[key]}
            else:
                yield from differences(before[key], after[key], here)
    elif (kept := _kept(before, after)) is not None:
        for index in reversed(range(len(before))):
            if index not in kept:
                yield {"op": "remove", "path": f"{path}/{index}"}
        for place, index in enumerate(kept):
            yield from differences(before[index], after[place], f"{path}/{place}")
        for one in after[len(kept) :]:
            yield {"op": "add", "path": f"{path}/-", "value": one}
    else:
        yield {"op": "replace", "path": path, "value": after}


def _kept(before: Any, after: Any) -> list[int] | None:
    """Of two lists of things with names: where the first things of the second stand in the first.

    None where no names are there to tell, or what is kept is not in the same order, before the new.
    """
    if not (isinstance(before, list) and isinstance(after, list)):
        return None
    names = [[_name(one) for one in many] for many in (before, after)]
    if None in names[0] + names[1]:
        return None
    kept = [index for index, name in enumerate(names[0]) if name in names[1]]
    return kept if names[1][: len(kept)] == [names[0][index] for index in kept] else None


def _name(one: Any) -> Any:
    return (one.get("groupName") or one.get("name")) if isinstance(one, dict) else None


class _Dumper(yaml.SafeDumper):
    """Blocks for text of several lines, as a person writes them."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
