"""A folder is a register: a file's name is its entry's name, and listing never imports."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

__all__ = ["Folder"]


class Folder:
    """The entries of a package's folder: `Folder(__name__, __path__[0])` in its `__init__`.

    A file `x.py` is the entry `x`; names with a leading underscore are not entries.
    """

    def __init__(self, package: str, path: str) -> None:
        self._package = package
        self._path = Path(path)

    def names(self) -> tuple[str, ...]:
        """Every entry's name, sorted. Imports nothing."""
        return tuple(sorted(p.stem for p in self._path.glob("*.py") if not p.stem.startswith("_")))

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def load(self, name: str) -> ModuleType:
        """The entry's module; KeyError with the choices where there is no such file."""
        if name not in self.names():
            raise KeyError(f"no {name!r} in {self._package}; it has {', '.join(self.names())}")
        return importlib.import_module(f"{self._package}.{name}")
