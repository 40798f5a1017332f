"""A folder is a register, and listing it imports nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from serving.folder import Folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / f"of_{tmp_path.name}"  # a package of its own for each test
    package.mkdir()
    for name in ("__init__", "_private", "b", "a"):
        (package / f"{name}.py").write_text(f"NAME = {name!r}\n")
    (package / "broken.py").write_text("raise RuntimeError('imported')\n")
    (package / "notes.txt").write_text("not an entry")
    monkeypatch.syspath_prepend(tmp_path)
    return package


@pytest.fixture
def folder(package: Path) -> Folder:
    return Folder(package.name, str(package))


def test_names_are_the_files_sorted_without_private_ones(folder: Folder) -> None:
    assert folder.names() == ("a", "b", "broken")


def test_listing_imports_nothing(folder: Folder, package: Path) -> None:
    assert folder.names()
    assert "b" in folder
    assert "_private" not in folder
    assert f"{package.name}.b" not in sys.modules


def test_an_entry_is_loaded_by_name(folder: Folder) -> None:
    assert folder.load("b").NAME == "b"


def test_an_unknown_entry_names_the_choices(folder: Folder) -> None:
    with pytest.raises(KeyError, match="it has a, b, broken"):
        folder.load("c")


def test_a_new_file_is_a_new_entry(folder: Folder, package: Path) -> None:
    (package / "c.py").write_text("NAME = 'c'\n")
    assert folder.load("c").NAME == "c"
