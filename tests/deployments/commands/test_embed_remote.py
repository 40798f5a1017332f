"""`polyvec embed --url`: what must be named, and that the key of the environment is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from deployments.cli import USER_ERROR, main
from serving.api.app import ApiSettings, create_app
from serving.service import Service
from tests.bank import Bank
from tests.services import HashEngine, listening, service, toy


async def run(served: Service, *words: object) -> int:
    """The exit code of `polyvec embed --url` against that service."""
    async with listening(create_app(served, ApiSettings())) as port:
        command = ["embed", "--url", f"http://127.0.0.1:{port}", *map(str, words)]
        return await asyncio.to_thread(main, command)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("a\nb\nc\n")
    return file


async def test_a_file_is_embedded_with_the_only_model_there_is(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npy"
    assert await run(service(toy()), texts, "--out", out) == 0
    assert np.load(out).shape == (3, 8)
    assert "3 rows of 8, 9 tokens" in capsys.readouterr().out


async def test_what_is_wanted_of_the_vectors_is_asked_for(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    words = ["--out", out, "--encoding", "ubinary", "--truncate", "--batch", 2, "--model", "toy"]
    assert await run(service(toy()), texts, *words) == 0
    assert np.load(out).shape == (3, 1) and np.load(out).dtype == np.uint8


async def test_the_key_of_the_environment_is_sent(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Bank(tmp_path, HashEngine(8), False)
    out = tmp_path / "out.npy"
    words = [texts, "--out", out, "--model", "toy"]
    assert await run(made.service, *words) == USER_ERROR
    monkeypatch.setenv("POLYVEC_API_KEY", made.keys["acme"].text)
    assert await run(made.service, *words) == 0
    await made.service.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x"], "--out FILE"),
        (["x", "y", "--out", "z.npy"], "name one file"),
        (["x", "--out", "z.npy", "--batch", 0], "--batch must be at least 1"),
        (["nowhere.txt", "--out", "z.npy"], "nowhere.txt: No such file"),
        (["x", "--out", "z.csv"], ".npy or a .parquet"),
    ],
)
async def test_what_is_missing_is_said(
    words: list[object],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert await run(service(toy()), *words) == USER_ERROR
    assert said in capsys.readouterr().err.replace("\n", " ")


async def test_of_several_models_one_must_be_named(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = service(toy(), toy(id="other"))
    assert await run(served, texts, "--out", tmp_path / "out.npy") == USER_ERROR
    assert "toy, other; name one" in capsys.readouterr().err
