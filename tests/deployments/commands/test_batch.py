"""`polyvec batch`: a file handed to a real server on loopback, looked at, cancelled and fetched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from deployments.cli import main
from deployments.commands import batch
from serving.api.batches import mount_batches
from serving.api.rendering import TENANT, error_value
from serving.api.settings import ApiSettings
from serving.errors import PolyvecError
from serving.tenants import LOCAL
from tests.services import listening
from tests.serving.batches.desks import desk, line, lines

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_LOOK_S", 0.0)


@asynccontextmanager
async def serving(folder: Path, *, start: bool = True) -> AsyncIterator[str]:
    """The address of a service with batches."""
    app = FastAPI()

    @app.exception_handler(PolyvecError)
    async def failed(request: Request, error: PolyvecError) -> JSONResponse:
        return JSONResponse(error_value(error, b"id"), error.status)

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, TENANT: LOCAL}, receive, send)

    async with desk(folder, start=start) as one, listening(known) as port:
        mount_batches(app, one.batches, ApiSettings())
        yield f"http://127.0.0.1:{port}"


async def run(*words: object) -> int:
    return await asyncio.to_thread(main, ["batch", *map(str, words)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*lines(9), line("bad", [])]))
    return path


def rows(path: Path) -> list[str]:
    return [json.loads(row)["custom_id"] for row in path.read_text().splitlines()]


async def test_a_file_is_handed_in_and_its_results_are_fetched(
    file: Path, tmp_path: Path, capsys: Captured
) -> None:
    async with serving(tmp_path) as url:
        assert await run("submit", file, "--url", url, "--model", "toy") == 0
        said = capsys.readouterr()
        identifier = said.out.strip()
        assert identifier.startswith("batch_") and "10 lines" in said.err
        out, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
        words = ("fetch", identifier, "--url", url, "--out", out, "--errors", errors)
        assert await run(*words) == 1  # a line failed
        assert "9 of 10 lines done, 1 failed" in " ".join(capsys.readouterr().out.split())
    assert rows(out) == [str(n) for n in range(9)]
    assert rows(errors) == ["bad"]
    assert sorted(path.suffix for path in tmp_path.glob("*.part")) == []


async def test_options_hold_for_every_line(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text(json.dumps(line("a")) + "\n")
    out = tmp_path / "out.jsonl"
    options = ("--task", "separation", "--dimensions", 4, "--encoding", "base64")
    async with serving(tmp_path) as url:
        assert await run("submit", file, "--url", url, "--model", "tasked", *options) == 0
        identifier = capsys.readouterr().out.strip()
        assert await run("fetch", identifier, "--url", url, "--out", out) == 0
    [entry] = json.loads(out.read_text())["response"]["body"]["data"]
    assert len(entry["embedding"]) == len("AAAA" * 5) + 4  # 16 bytes in base64


async def test_a_batch_is_looked_at_and_cancelled(
    file: Path, tmp_path: Path, capsys: Captured
) -> None:
    async with serving(tmp_path, start=False) as url:
        await run("submit", file, "--url", url, "--model", "toy")
        identifier = capsys.readouterr().out.strip()
        for verb, status in (("status", "pending"), ("cancel", "cancelled")):
            assert await run(verb, identifier, "--url", url) == 0
            assert f"{identifier}: {status}, 0 of 10" in capsys.readouterr().out
        assert await run("fetch", identifier, "--url", url, "--out", tmp_path / "out") == 1


async def test_what_is_refused_is_one_sentence(
    file: Path, tmp_path: Path, capsys: Captured
) -> None:
    async with serving(tmp_path, start=False) as url:
        for words, sentence in (
            (("submit", file, "--url", url, "--model", "x"), "answers 404: there is no model 'x'"),
            (("submit", tmp_path / "none", "--url", url, "--model", "x"), "No such file"),
            (("status", "batch_0", "--url", url), "answers 404: there is no batch 'batch_0'"),
            (("status", "a?b", "--url", url), "there is no batch 'a?b'"),
            (("status", "x", "--url", "nowhere"), "'nowhere' is no address that can be asked"),
            (("status", "x", "--url", "http://127.0.0.1:1"), "does not answer"),
        ):
            assert await run(*words) == 2
            assert sentence in " ".join(capsys.readouterr().err.split())


async def test_fetching_outlasts_a_restart(file: Path, tmp_path: Path, capsys: Captured) -> None:
    answers = iter([200, 503, 502, 200])
    made = {"batch_id": "b", "status": "processing", "stats": {"completed": 1, "total": 1}}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"].endswith("/output"):
            await JSONResponse({})(scope, receive, send)
            return
        status = next(answers)
        known = made if status == 200 else {"detail": "starting"}
        await JSONResponse(dict(known), status)(scope, receive, send)
        made["status"] = "completed"

    async with listening(app) as port:
        url = f"http://127.0.0.1:{port}"
        assert await run("fetch", "b", "--url", url, "--out", tmp_path / "out") == 0
    assert next(answers, None) is None
