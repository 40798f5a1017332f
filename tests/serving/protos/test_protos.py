"""The proto: its code is current, its style is buf's, and no change breaks who calls it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.protos.generate import PROTO, ROOT, generate

FOLDER = (ROOT / PROTO).parent
BUF = Path(sys.executable).with_name("buf")

Change = Callable[[str, str], None]


def buf(*words: str, folder: Path = FOLDER) -> list[str]:
    """What buf complains of, a line each."""
    done = subprocess.run([BUF, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.stdout.splitlines()


def breaking(folder: Path) -> list[str]:
    return buf("breaking", "--against", str(FOLDER / "embeddings.binpb"), folder=folder)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The proto and buf's config elsewhere, to be changed."""
    for name in (PROTO.name, "buf.yaml"):
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path


def change(folder: Path, old: str, new: str) -> None:
    file = folder / PROTO.name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    generate(tmp_path)
    made = {file.name: file.read_text() for file in (tmp_path / PROTO.parent).iterdir()}
    assert len(made) == 3
    kept = {name: (FOLDER / name).read_text() for name in made}
    assert made == kept, "run: python -m serving.protos.generate"


def test_the_style_is_bufs() -> None:
    assert buf("lint") == []


def test_bad_style_is_seen(copy: Path) -> None:
    change(copy, "service EmbeddingsService", "service Embedder")
    assert any("should be suffixed" in line for line in buf("lint", folder=copy))


def test_nothing_breaks_who_calls_the_published_schema() -> None:
    assert breaking(FOLDER) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string request_id = 4;", "string request_id = 5;"),
        ("uint64 total_tokens = 1;", "string total_tokens = 1;"),
        ("  bool late_chunking = 6;\n", ""),
        ("rpc GetModel(", "rpc ShowModel("),
    ],
)
def test_a_change_that_breaks_a_caller_is_seen(copy: Path, old: str, new: str) -> None:
    change(copy, old, new)
    assert breaking(copy)


def test_an_added_field_breaks_nobody(copy: Path) -> None:
    change(copy, "message GetModelRequest {", "message GetModelRequest {\n  string more = 2;")
    assert breaking(copy) == []
