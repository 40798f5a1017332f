"""Batches over HTTP: Jina's shape, JSONL as it is, and what is refused in which words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from serving.accounts import Accounts
from serving.api.app import create_app
from serving.api.batch_lines import reader
from serving.api.batches import mount_batches
from serving.api.rendering import TENANT, error_headers, error_value
from serving.api.settings import ApiSettings
from serving.batches.desk import Batches
from serving.errors import MediaUnreachable, PolyvecError
from serving.media import MediaSource, Wanted
from serving.tenants import LOCAL, Tenant, open_tenants
from serving.tenants.keys import new_key
from tests.services import service, toy
from tests.serving.batches.desks import QUICK, Desk, bills, desk, ledger, line, lines
from tests.tenants import bearer, entry, file_of

JSONL = {"content-type": "application/jsonl"}
SETTINGS = ApiSettings(body_bytes=4096)


class Elsewhere:
    """A file at one address."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, source: str, wanted: Wanted) -> bytes:
        if source != "https://files.example/lines.jsonl":
            raise MediaUnreachable(f"{wanted.field} cannot be fetched", wanted.field)
        assert (wanted.field, wanted.limit) == ("input_url", 4096)
        return self.data


@asynccontextmanager
async def open_desk(
    folder: Path, tenant: Tenant = LOCAL, source: MediaSource | None = None, **more: object
) -> AsyncIterator[tuple[httpx.AsyncClient, Desk, FastAPI]]:
    app = FastAPI()

    @app.exception_handler(PolyvecError)
    async def failed(request: Request, error: PolyvecError) -> JSONResponse:
        headers = {name.decode(): value.decode() for name, value in error_headers(error)}
        return JSONResponse(error_value(error, b"id"), error.status, headers)

    async with desk(folder, **more) as one:  # type: ignore[arg-type]
        one.books.tenants[tenant.key_id] = tenant
        mount_batches(app, one.batches, SETTINGS, source)

        async def known(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, TENANT: tenant}, receive, send)

        transport = httpx.ASGITransport(known)
        async with httpx.AsyncClient(transport=transport, base_url="http://polyvec") as http:
            yield http, one, app


async def ended(http: httpx.AsyncClient, identifier: str) -> dict[str, object]:
    while True:
        status = (await http.get(f"/v1/batch/{identifier}")).json()
        if status["completed_at"] is not None:
            return status
        await asyncio.sleep(0.002)


def rows(answer: httpx.Response) -> list[dict[str, object]]:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jsonl"
    assert int(answer.headers["content-length"]) == len(answer.content)
    return [json.loads(row) for row in answer.content.splitlines()]


async def test_lines_in_a_json_object_come_back_as_a_file(tmp_path: Path) -> None:
    sent = {"model": "toy", "input": [*lines(5), line("bad", [])], "normalized": None}
    async with open_desk(tmp_path) as (http, _, _):
        answer = await http.post("/v1/batch/embeddings", json=sent)
        made = answer.json()
        assert answer.status_code == 200
        assert made["status"] == "pending" and made["output_url"] is made["error_file_url"] is None
        status = await ended(http, made["batch_id"])
        found = rows(await http.get(str(status["output_url"])))
        [error] = rows(await http.get(str(status["error_file_url"])))
        assert (await http.get("/v1/batches")).json() == [status]
    assert status | {"stats": None} == made | {
        "status": "completed",
        "stats": None,
        "completed_at": status["completed_at"],
        "expires_at": status["expires_at"],
        "output_url": f"http://polyvec/v1/batch/{made['batch_id']}/output",
        "error_file_url": f"http://polyvec/v1/batch/{made['batch_id']}/errors",
    }
    assert status["stats"] == {"total": 6, "completed": 5, "failed": 1, "total_tokens": 5 * 8}
    assert [row["custom_id"] for row in found] == ["0", "1", "2", "3", "4"]
    assert found[0]["response"]["body"]["object"] == "list"  # type: ignore[index]
    assert error["custom_id"] == "bad" and error["error"]["line"] == 6  # type: ignore[index]


async def test_a_file_of_lines_is_larger_than_a_body_may_be(tmp_path: Path) -> None:
    sent = b"".join(json.dumps(one).encode() + b"\n" for one in lines(200))
    assert len(sent) > SETTINGS.body_bytes

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(sent), 1000):
            yield sent[start : start + 1000]

    said = {"model": "tasked", "task": "separation", "dimensions": "4", "normalized": "false"}
    options = replace(QUICK, piece_lines=32)
    async with open_desk(tmp_path, options=options) as (http, _, _):
        answer = await http.post(
            "/v1/batch/embeddings", params=said, headers=JSONL, content=slowly()
        )
        assert answer.status_code == 200, answer.text
        status = await ended(http, answer.json()["batch_id"])
        found = rows(await http.get(str(status["output_url"])))
    assert [row["custom_id"] for row in found] == [str(n) for n in range(200)]
    [entry] = found[0]["response"]["body"]["data"]  # type: ignore[index]
    assert len(entry["embedding"]) == 4
    assert sum(x * x for x in entry["embedding"]) != pytest.approx(1, abs=1e-3)


async def test_lines_may_lie_at_an_address_where_such_are_fetched(tmp_path: Path) -> None:
    source = Elsewhere(b"".join(json.dumps(one).encode() + b"\n" for one in lines(3)))
    sent = {"model": "toy", "input_url": "https://files.example/lines.jsonl"}
    async with open_desk(tmp_path, source=source) as (http, _, _):
        made = (await http.post("/v1/batch/embeddings", json=sent)).json()
        assert (await ended(http, made["batch_id"]))["stats"]["completed"] == 3  # type: ignore[index]
        answer = await http.post("/v1/batch/embeddings", json={**sent, "input_url": "https://x"})
    assert (answer.status_code, answer.json()["code"]) == (422, "INPUT_MEDIA_UNREACHABLE")


async def test_cancelling_answers_with_how_it_stands(tmp_path: Path) -> None:
    async with open_desk(tmp_path, start=False) as (http, _, _):
        made = (await http.post("/v1/batch/embeddings", json=of(lines(2)))).json()
        for _ in range(2):
            answer = await http.delete(f"/v1/batch/{made['batch_id']}")
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert rows(await http.get(f"/v1/batch/{made['batch_id']}/output")) == []


def of(given: object, **more: object) -> dict[str, object]:
    return {"model": "toy", "input": given, **more}


@pytest.mark.parametrize(
    ("body", "status", "field", "words"),
    [
        ({"input": []}, 422, "model", "missing"),
        ({"model": "toy"}, 422, "input", "input_url"),
        (of([]), 422, "input", "no line"),
        (of("text"), 422, "input", "list"),
        (of([line(0), "text"]), 422, "input.1", "object"),
        (of([line(0)], input_url="https://x"), 422, "input", "input_url"),
        ({"model": "toy", "input_url": "https://x"}, 422, "input_url", "media.fetch"),
        ({"model": "toy", "input_url": 7}, 422, "input_url", "string"),
        (of([line(0)], webhook_url="https://x"), 422, "webhook_url", "not called"),
        (of([line(0)], dimensions=99), 422, "dimensions", "no vectors"),
        (of([line(0)], task="query"), 400, "task", "no task"),
        (of([line(0)], model="nothing"), 404, "model", "toy"),
        (of([line(0, "x" * 5000)]), 413, None, "4096 bytes"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_name(
    tmp_path: Path, body: dict[str, object], status: int, field: str | None, words: str
) -> None:
    async with open_desk(tmp_path, start=False) as (http, _, _):
        answer = await http.post("/v1/batch/embeddings", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == field
    assert words in answer.json()["detail"]
    assert [one.name for one in (tmp_path / "batches").iterdir()] == ["batches.db"]


@pytest.mark.parametrize(
    ("params", "headers", "status", "words"),
    [
        ({"model": "toy", "colour": "red"}, {}, 422, "'colour' is unknown"),
        ({}, {}, 422, "model is missing"),
        ({"model": "toy"}, {"content-encoding": "gzip"}, 400, "compressed"),
        ({"model": "toy"}, {"content-length": "999999999999"}, 413, "999999999999"),
    ],
)
async def test_a_file_of_lines_is_refused_by_what_stands_beside_it(
    tmp_path: Path, params: dict[str, str], headers: dict[str, str], status: int, words: str
) -> None:
    async with open_desk(tmp_path, start=False) as (http, _, _):
        answer = await http.post(
            "/v1/batch/embeddings", params=params, headers=JSONL | headers, content=b"{}"
        )
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("limit", ["0", "101", "many", "-1", "", "9" * 5000, "000000100999"])
async def test_a_limit_that_is_none_is_refused(tmp_path: Path, limit: str) -> None:
    async with open_desk(tmp_path, start=False) as (http, _, _):
        answer = await http.get("/v1/batches", params={"limit": limit})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "limit")


async def test_a_batch_of_nobody_is_not_found_by_any_route(tmp_path: Path) -> None:
    async with open_desk(tmp_path, start=False) as (http, one, _):
        other = await one.submit(lines(1), replace(LOCAL, id="other"))
        for identifier in (other.id, "batch_0", "embeddings"):
            for method, path in (
                ("GET", ""),
                ("DELETE", ""),
                ("GET", "/output"),
                ("GET", "/errors"),
            ):
                answer = await http.request(method, f"/v1/batch/{identifier}{path}")
                assert answer.status_code == 404, answer.text
        assert (await http.get("/v1/batches")).json() == []


async def test_a_tenant_with_too_many_is_told(tmp_path: Path) -> None:
    options = replace(QUICK, per_tenant=1)
    async with open_desk(tmp_path, start=False, options=options) as (http, _, _):
        assert (await http.post("/v1/batch/embeddings", json=of(lines(1)))).status_code == 200
        answer = await http.post("/v1/batch/embeddings", json=of(lines(1)))
    assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMIT_EXCEEDED")


async def test_an_upload_that_stops_coming_is_not_waited_for(tmp_path: Path) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with open_desk(tmp_path, start=False) as (_, one, _):
        app = FastAPI()
        mount_batches(app, one.batches, replace(SETTINGS, body_timeout_s=0.01))

        @app.exception_handler(PolyvecError)
        async def failed(request: Request, error: PolyvecError) -> JSONResponse:
            return JSONResponse(error_value(error, b"id"), error.status)

        async def known(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, TENANT: LOCAL}, receive, send)

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(known), base_url="http://polyvec"
        ) as http:
            answer = await http.post(
                "/v1/batch/embeddings", params={"model": "toy"}, headers=JSONL, content=stuck()
            )
    assert (answer.status_code, answer.json()["code"]) == (408, "INPUT_BODY_TIMEOUT")


async def test_links_have_the_scheme_that_a_proxy_was_asked_by(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as (http, one, _):
        batch = await one.ended(await one.submit(lines(1)))
        answer = await http.get(f"/v1/batch/{batch.id}", headers={"x-forwarded-proto": "https"})
    assert answer.json()["output_url"] == f"https://polyvec/v1/batch/{batch.id}/output"


async def test_the_document_describes_every_route(tmp_path: Path) -> None:
    async with open_desk(tmp_path, start=False) as (_, _, app):
        paths = app.openapi()["paths"]
    assert {(path, method) for path, methods in paths.items() for method in methods} == {
        ("/v1/batch/embeddings", "post"),
        ("/v1/batch/{batch_id}", "get"),
        ("/v1/batch/{batch_id}", "delete"),
        ("/v1/batch/{batch_id}/output", "get"),
        ("/v1/batch/{batch_id}/errors", "get"),
        ("/v1/batches", "get"),
    }
    content = paths["/v1/batch/embeddings"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/jsonl"}
    assert "$ref" not in json.dumps(content)


async def test_a_whole_service_bills_a_batch_to_the_key_that_sent_it(tmp_path: Path) -> None:
    key, other = new_key(), new_key()
    file = tmp_path / "tenants.yaml"
    file.write_text(file_of({"acme": {"keys": [entry(key)]}, "umbra": {"keys": [entry(other)]}}))
    meter = ledger(tmp_path)
    served = service(toy(), accounts=Accounts(open_tenants(file), meter=meter))
    options = replace(QUICK, folder=str(tmp_path / "batches"))
    batches = Batches(served, served.accounts, reader(served), options)
    mounts = [partial(mount_batches, batches=batches, settings=SETTINGS)]
    app = create_app(served, SETTINGS, None, mounts)
    batches.start()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://polyvec") as http:
        assert (await http.get("/v1/batches")).status_code == 401
        http.headers["authorization"] = bearer(key)
        made = (await http.post("/v1/batch/embeddings", json=of(lines(9)))).json()
        await ended(http, made["batch_id"])
        path = f"/v1/batch/{made['batch_id']}"
        answer = await http.get(path, headers={"authorization": bearer(other)})
        assert (answer.status_code, answer.json()["code"]) == (404, "RESOURCE_NOT_FOUND")
    await batches.close()
    await served.close()
    assert [tenant for tenant, *_ in bills(tmp_path)] == ["acme"] * 9
