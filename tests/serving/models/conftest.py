"""Checkpoints in upstream's layouts, and a cache of their own for what is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.models.reading import Altered
from tests.upstream import NAMES, build


@pytest.fixture(scope="session", autouse=True)
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for the views of all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYVEC_CACHE", str(tmp_path_factory.mktemp("views")))
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every checkpoint of `tests.upstream`, not to be written to."""
    folder = tmp_path_factory.mktemp("upstream")
    for name in NAMES:
        build(name, folder)
    return folder


@pytest.fixture
def altered(upstream: Path, tmp_path: Path) -> Altered:
    """A copy of a checkpoint, to be written to."""
    return lambda name: shutil.copytree(upstream / name, tmp_path / name)
