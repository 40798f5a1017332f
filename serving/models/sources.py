"""Where an adapter lies, a directory, the hub or an object store, and its files on this machine."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from serving.errors import ModelUnavailable
from serving.models.adapters import CONFIG, WEIGHTS
from serving.models.hub import fetch
from serving.models.views import kept

__all__ = ["folder_of"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = (CONFIG, WEIGHTS)


def folder_of(source: str) -> Path:
    """A directory with an adapter's files in PEFT's layout, fetched where it has to be.

    A source is a directory, a URL that fsspec knows (`s3://bucket/folder`), or a hub id. Every
    failure is a `ModelUnavailable` of one sentence.
    """
    if "://" in source:
        return _stored(source.rstrip("/"))
    if source.startswith(("/", "./", "../", "~")) or (source and Path(source).is_dir()):
        path = Path(source).expanduser()
        if not path.is_dir():
            raise ModelUnavailable(f"there is no directory {source}")
        return path.resolve()
    if _HUB_ID.fullmatch(source):
        return fetch(source, None, _FILES)
    raise ModelUnavailable(
        f"the adapter {source!r} is no directory, and neither a URL (s3://bucket/folder) nor a hub"
        " id (org/name)"
    )


def _stored(source: str) -> Path:
    """Of an object store, each version of the files once."""
    import fsspec

    try:
        # A foreign border: fsspec's file systems are without types.
        store, root = fsspec.url_to_fs(source)
        store.invalidate_cache()
        version = "".join(str(store.ukey(f"{root}/{name}")) for name in _FILES)
    except Exception as error:
        raise _fault(source, error) from None
    name = hashlib.sha256(f"{source} {version}".encode()).hexdigest()[:20]
    return kept(source, "adapters", name, lambda folder: _fetch(source, store, root, folder))


def _fetch(source: str, store: Any, root: str, folder: Path) -> None:
    for name in _FILES:
        try:
            store.get_file(f"{root}/{name}", str(folder / name))
        except Exception as error:
            raise _fault(source, error) from None


def _fault(source: str, error: Exception) -> ModelUnavailable:
    match error:
        case FileNotFoundError():
            return ModelUnavailable(f"{source} does not hold {' and '.join(_FILES)}")
        case ImportError() | ValueError():  # of a scheme: what to install, or that there is no such
            return ModelUnavailable(f"{source} cannot be opened: {_line(error)}")
    return ModelUnavailable(f"{source} cannot be fetched: {type(error).__name__}: {_line(error)}")


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").rstrip(".")
