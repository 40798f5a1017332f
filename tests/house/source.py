"""The house's own source, read with `ast`: modules, what they import, what they define."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("serving", "deployments", "loadtests")
GENERATED = ("_pb2.py", "_pb2_grpc.py")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """One file: `name` is dotted, `path` relative to the root, `tree` its syntax."""

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether this is an `__init__.py`."""
        return self.path.endswith("__init__.py")

    @property
    def is_public(self) -> bool:
        """Whether no part of the name has a leading underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))


def _tree(text: str) -> ast.Module:
    """The text's syntax tree, asked for again where another thread's parse got in the way.

    CPython 3.11 counts the parser's depth for all threads together (gh-106905), and in a whole test
    run Ray's threads are about.
    """
    for _ in range(20):
        with suppress(SystemError):
            return ast.parse(text)
    return ast.parse(text)


def parse(name: str, text: str, path: str | None = None) -> Module:
    """A module from its source; the tests of the tests make theirs so."""
    return Module(name, path or name.replace(".", "/") + ".py", text, _tree(text))


@cache
def modules(*packages: str) -> tuple[Module, ...]:
    """Every module of these packages (all of them, with none named), generated code left out."""
    found = []
    for package in packages or PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            if not file.name.endswith(GENERATED):
                relative = file.relative_to(ROOT)
                dotted = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
                found.append(parse(dotted, file.read_text(), str(relative)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Import:
    """`name` is the module imported, or the module's member: `from a import b` gives `a.b`."""

    name: str
    line: int
    member: bool


def imports(module: Module) -> Iterator[Import]:
    """Everything a module imports, wherever in it: at its top, in a function, for typing only."""
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(alias.name, node.lineno, member=False)
            case ast.ImportFrom():
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*(parents if node.level else []), node.module or ""]).strip(".")
                for alias in node.names:
                    yield Import(f"{source}.{alias.name}", node.lineno, member=True)


def resolve(found: Import, names: frozenset[str]) -> str:
    """The module that an import runs: of `from a import b`, `a.b` if that is a module, else `a`."""
    if found.member and found.name not in names:
        return found.name.rpartition(".")[0]
    return found.name


def tracked() -> list[str]:
    """Every file of the repository, as git sees it: tracked, or new and not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).exists())
