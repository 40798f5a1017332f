"""Tiny checkpoints, for every room that reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import NAMES, build


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every tiny checkpoint, for tests that only read."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in NAMES:
        build(name, folder)
    return folder


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A checkpoint of one's own, to change."""
    return build("bert_mean", tmp_path)
