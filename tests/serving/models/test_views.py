"""Views are made once, whole or not at all, by whoever comes first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.errors import ModelUnavailable
from serving.models import views
from serving.models.checkpoints import Checkpoint, resolve
from tests.serving.models.reading import Altered, change_tensors, rewrite, spec_of

MAKE = """
import sys, time
from pathlib import Path
from serving.models import views
from serving.models.checkpoints import resolve

def fill(view):
    with open(sys.argv[2], "a") as made:
        made.write("x")
    (view / "half").write_text("1")
    while Path(sys.argv[3]).exists():
        time.sleep(0.01)
    (view / "whole").write_text("2")

print(views.made(resolve(sys.argv[1]), "family", fill))
"""


@pytest.fixture
def checkpoint(altered: Altered) -> Checkpoint:
    return resolve(str(altered("jina_v5_small")))


def start(checkpoint: Checkpoint, tmp_path: Path) -> subprocess.Popen[str]:
    """A process that makes a view, and is half-way through it while tmp_path/wait is there."""
    arguments = [str(checkpoint.path), str(tmp_path / "made"), str(tmp_path / "wait")]
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, *arguments], stdout=subprocess.PIPE, text=True
    )


def half_way(tmp_path: Path) -> None:
    """Wait until a process is within `fill`."""
    until = time.monotonic() + 60
    while not (tmp_path / "made").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def put(view: Path) -> None:
    (view / "whole").write_text("2")


def test_several_processes_at_once_make_one_view(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "wait").touch()
    started = [start(checkpoint, tmp_path) for _ in range(4)]
    half_way(tmp_path)
    (tmp_path / "wait").unlink()
    paths = {process.communicate(timeout=60)[0].strip() for process in started}
    assert [process.returncode for process in started] == [0] * 4
    [path] = paths
    assert (tmp_path / "made").read_text() == "x"
    assert Path(path, "whole").exists()


def test_what_a_dead_process_left_is_no_view_and_is_cleared_away(
    checkpoint: Checkpoint, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "wait").touch()
    process = start(checkpoint, tmp_path)
    half_way(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    [left] = [one for one in (cache / "views").iterdir() if one.is_dir()]
    assert left.name.startswith(".family-")
    path = views.made(checkpoint, "family", put)
    assert [one for one in (cache / "views").iterdir() if one.is_dir()] == [path]
    assert not (path / "half").exists()


def test_what_cannot_be_converted_leaves_nothing(checkpoint: Checkpoint, cache: Path) -> None:
    def fail(view: Path) -> None:
        put(view)
        raise ModelUnavailable("no")

    with pytest.raises(ModelUnavailable, match=r"^no$"):
        views.made(checkpoint, "family", fail)
    assert not [one for one in (cache / "views").iterdir() if one.is_dir()]
    assert (views.made(checkpoint, "family", put) / "whole").exists()


def test_a_view_is_made_once(checkpoint: Checkpoint) -> None:
    made: list[Path] = []
    first = views.made(checkpoint, "family", made.append)
    assert views.made(checkpoint, "family", made.append) == first
    assert len(made) == 1


def test_a_checkpoint_that_changed_has_another_view(altered: Altered) -> None:
    path = altered("jina_v5_small")
    first = spec_of(path)
    rewrite(path, "config.json", rope_theta=52000.0)
    second = spec_of(path)
    change_tensors(
        path / "adapters" / "retrieval" / "adapter_model.safetensors",
        lambda found: {key: one * 2 for key, one in found.items()},
    )
    third = spec_of(path)
    assert len({first.path, second.path, third.path}) == 3
    assert "52000" in Path(second.path, "config.json").read_text()


def test_a_readme_that_changed_changes_no_view(altered: Altered) -> None:
    path = altered("jina_v5_small")
    first = spec_of(path).path
    (path / "README.md").write_text("other")
    assert spec_of(path).path == first


def test_large_files_are_links(upstream: Path) -> None:
    for name in ("jina_v4", "jina_v5_nano"):
        path = Path(spec_of(upstream / name).path)
        links = {one.name for one in path.iterdir() if one.is_symlink()}
        assert {one.name for one in path.glob("*.safetensors")} <= links
        assert "tokenizer.json" in links
        if name == "jina_v5_nano":
            adapters = [Path(one.path) for one in spec_of(upstream / name).adapters]
            assert all((one / "adapter_model.safetensors").is_symlink() for one in adapters)


def test_the_cache_is_in_the_home_if_it_is_nowhere_else(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLYVEC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = Path(spec_of(upstream / "jina_v5_nano").path)
    assert path.parent == tmp_path / ".cache" / "polyvec" / "views"


def test_a_cache_that_cannot_be_written_is_said(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelUnavailable) as caught:
        spec_of(upstream / "jina_v4")
    assert caught.value.message == (
        f"{upstream / 'jina_v4'} has to be kept in {tmp_path / 'file' / 'views'}, and that cannot"
        " be written (Not a directory); set POLYVEC_CACHE to a directory that can"
    )


def test_a_view_that_is_there_needs_no_writing(
    upstream: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = spec_of(upstream / "jina_v3")
    monkeypatch.setattr(views, "_locked", None)
    assert spec_of(upstream / "jina_v3") == made
