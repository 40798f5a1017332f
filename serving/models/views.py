"""A checkpoint as transformers and vLLM load it, made once of one that they cannot: a view.

A view is a directory under `$POLYVEC_CACHE` (by default ~/.cache/polyvec) with a config.json of our
own, files that are links to the checkpoint's where those fit as they are, and converted ones where
they do not. It is made in a folder of its own and then renamed, under a lock: several processes may
want it at once, and one that dies half-way leaves nothing that another takes for a view. Its name
holds a digest of the checkpoint's files, so that a changed checkpoint has another view.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from serving.errors import ModelUnavailable
from serving.models.checkpoints import Checkpoint
from serving.models.tensors import load

__all__ = ["kept", "link", "link_weights", "made", "write_json"]

# Part of every view's name: count it up when what is written changes.
_LAYOUT = 1
_MADE_OF = (".jinja", ".json", ".model", ".safetensors", ".txt")
_TEXT_SIDE = (
    "added_tokens.json",
    "chat_template*",
    "merges.txt",
    "*.model",
    "special_tokens_map.json",
    "tokenizer.json",
    "vocab.*",
)
# Of the same files; what leads to remote code is left out of them.
_REWRITTEN = ("tokenizer_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_REMOTE = ("auto_map", "processor_class")


def made(checkpoint: Checkpoint, family: str, fill: Callable[[Path], None]) -> Path:
    """The directory of the checkpoint's view, which `fill` writes where there is none yet.

    Tokenizer and processor files are there before `fill` is called. `ModelUnavailable` where the
    cache cannot be written.
    """

    def whole(aside: Path) -> None:
        _text_side(checkpoint, aside)
        fill(aside)

    return kept(checkpoint.source, "views", f"{family}-{_digest(checkpoint)}", whole)


def kept(source: str, kind: str, name: str, fill: Callable[[Path], None]) -> Path:
    """The directory of that kind and name in the cache, which `fill` writes where there is none.

    `ModelUnavailable` where the cache cannot be written.
    """
    folder = _cache() / kind
    target = folder / name
    if target.is_dir():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f".{target.name}.lock"):
            if not target.is_dir():
                _make(target, fill)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelUnavailable(
            f"{source} has to be kept in {folder}, and that cannot be written ({reason});"
            " set POLYVEC_CACHE to a directory that can"
        ) from None
    return target


def link(checkpoint: Checkpoint, view: Path, names: Iterable[str]) -> None:
    """Links in the view to files of the checkpoint, under the same names."""
    for name in names:
        if Path(name).name != name:
            raise checkpoint.fault(f"has a file {name!r} outside its own folder")
        (view / name).symlink_to((checkpoint.path / name).absolute())


def link_weights(checkpoint: Checkpoint, view: Path) -> dict[str, str]:
    """Links to the checkpoint's weights; the file of each of their tensors."""
    name = checkpoint.weight_file("")
    if name.endswith((".bin", ".bin.index.json")):
        raise checkpoint.fault(f"has its weights in {name}; wanted is model.safetensors")
    if name.endswith(".index.json"):
        listed = checkpoint.json(name).inner("weight_map").values
        places = {key: str(file) for key, file in listed.items()}
        link(checkpoint, view, [name])
    else:
        places = dict.fromkeys(load(checkpoint, name), name)
    link(checkpoint, view, sorted(set(places.values())))
    return places


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """A JSON object as a file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False), encoding="utf-8")


def _cache() -> Path:
    return Path(os.environ.get("POLYVEC_CACHE") or "~/.cache/polyvec").expanduser().absolute()


def _digest(checkpoint: Checkpoint) -> str:
    """Of the layout, the checkpoint's place, and the names, sizes and times of its files."""
    found = hashlib.sha256(f"{_LAYOUT} {checkpoint.path}".encode())
    for place, folders, files in os.walk(checkpoint.path):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for path in (Path(place, name) for name in sorted(files)):
            if path.suffix in _MADE_OF and path.exists():
                stat = path.stat()
                found.update(f"\n{path} {stat.st_size} {stat.st_mtime_ns}".encode())
    return found.hexdigest()[:20]


def _make(target: Path, fill: Callable[[Path], None]) -> None:
    """Written aside and renamed. Whoever holds the lock may clear away what a dead process left."""
    prefix = f".{target.name}."
    for left in target.parent.glob(f"{prefix}*/"):
        shutil.rmtree(left)
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    try:
        aside.chmod(0o755)  # mkdtemp's is for its owner alone; other users may share a cache
        fill(aside)
        _settle(aside)
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _settle(folder: Path) -> None:
    """Have the files on the disk, so that a machine that dies leaves no empty ones."""
    for place, _, files in os.walk(folder):
        for path in (Path(place, name) for name in files):
            if not path.is_symlink():
                with path.open("rb") as file:
                    os.fsync(file.fileno())


def _text_side(checkpoint: Checkpoint, view: Path) -> None:
    """Tokenizer and processor files."""
    found = {path.name for pattern in _TEXT_SIDE for path in checkpoint.path.glob(pattern)}
    link(checkpoint, view, sorted(found))
    for name in _REWRITTEN:
        if checkpoint.has(name):
            values = checkpoint.json(name).values
            write_json(view / name, {key: values[key] for key in values if key not in _REMOTE})


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time; the system frees the lock of a dead one."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
