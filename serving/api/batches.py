"""`/v1/batch/embeddings` and what belongs to it: Jina's batches, and JSONL sent as it is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import ClientDisconnect

from serving.api.batch_lines import OPTIONS
from serving.api.batch_schemas import BatchRequest, BatchStatus
from serving.api.body import ClientGone, json_object, read_body
from serving.api.describe import Described, error_responses
from serving.api.rendering import TENANT
from serving.api.settings import ApiSettings
from serving.batches.batch import Batch
from serving.batches.desk import Batches
from serving.batches.files import Kind
from serving.errors import BodyTimeout, BodyTooLarge, BrokenBody, InvalidInput
from serving.media import MediaSource, Wanted
from serving.tenants import Tenant

__all__ = ["mount_batches"]

_JSONL = ("application/jsonl", "application/x-ndjson", "application/ndjson")
_CHUNK = 1 << 16
_LISTED, _MOST_LISTED = 20, 100
_FLAGS = {"true": True, "false": False}
_GONE = 499  # nobody reads it
_Sent: TypeAlias = tuple[Mapping[str, object], AsyncIterator[bytes]]


def mount_batches(
    app: FastAPI, batches: Batches, settings: ApiSettings, source: MediaSource | None = None
) -> None:
    """The routes. `source` fetches an `input_url`; without it, addresses are refused."""
    routes = _Routes(batches, settings, source)
    one = "/v1/batch/{batch_id}"
    shown: Described = {"model": BatchStatus}
    jsonl: Described = {"content": {_JSONL[0]: {"schema": {"type": "string"}}}}
    listed: Described = {"model": list[BatchStatus]}
    for method, path, answer, summary, described in (
        ("POST", "/v1/batch/embeddings", routes.create, "Hand in a batch", shown),
        ("GET", one, routes.status, "Show a batch", shown),
        ("DELETE", one, routes.cancel, "Cancel a batch", shown),
        ("GET", f"{one}/output", routes.output, "Download a batch's output", jsonl),
        ("GET", f"{one}/errors", routes.errors, "Download the lines that failed", jsonl),
        ("GET", "/v1/batches", routes.listed, "List batches", listed),
    ):
        creates, lists = method == "POST", path == "/v1/batches"
        statuses = (400, 403, 408, 413, 422, 429) if creates else (422,) if lists else (404,)
        app.add_api_route(
            path,
            answer,
            methods=[method],
            summary=summary,
            tags=["Batches"],
            operation_id=f"{answer.__name__}_batch{'es' if lists else ''}",
            response_class=Response,
            responses={200: described, **error_responses(401, *statuses, 500, 503)},
            openapi_extra=_CREATE if creates else _LIST if lists else None,
        )


class _Routes:
    def __init__(self, batches: Batches, settings: ApiSettings, source: MediaSource | None) -> None:
        self._batches, self._settings, self._source = batches, settings, source

    async def create(self, request: Request) -> Response:
        """Lines to embed, each as a request to `/v1/embeddings` would be, when there is time.

        They come in a JSON object, or as a file of JSONL, which may be larger; its options stand in
        the address then (`?model=…&task=…`). Quotas hold, and a line is billed once.
        """
        try:
            options, chunks = await self._sent(request)
            batch = await self._batches.submit(_tenant(request), options, chunks)
        except (ClientDisconnect, ClientGone):
            return Response(status_code=_GONE)
        return JSONResponse(_status(request, batch))

    async def status(self, request: Request, batch_id: str) -> Response:
        """How a batch of the caller's tenant stands."""
        batch = await self._batches.find(_tenant(request), batch_id)
        return JSONResponse(_status(request, batch))

    async def cancel(self, request: Request, batch_id: str) -> Response:
        """Nothing more is begun; what is done stays, and is billed. One that has ended stays so."""
        batch = await self._batches.cancel(_tenant(request), batch_id)
        return JSONResponse(_status(request, batch))

    async def listed(self, request: Request) -> Response:
        """The batches of the caller's tenant, the newest first."""
        word = request.query_params.get("limit", str(_LISTED))
        if not (re.fullmatch("[0-9]{1,3}", word) and 1 <= int(word) <= _MOST_LISTED):
            raise InvalidInput(f"limit must be a whole number from 1 to {_MOST_LISTED}", "limit")
        found = await self._batches.listed(_tenant(request), int(word))
        return JSONResponse([_status(request, batch) for batch in found])

    async def output(self, request: Request, batch_id: str) -> Response:
        """A line for each that was embedded, in the order of the lines.

        `{"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error": null}`,
        `body` as `/v1/embeddings` answers. There once the batch has ended.
        """
        return await self._result(request, batch_id, "output")

    async def errors(self, request: Request, batch_id: str) -> Response:
        """A line for each that was not embedded; `line` in its `error` is its number in the file.

        `{"id", "custom_id", "response": null, "error": {"code", "message", "param", "line"}}`
        """
        return await self._result(request, batch_id, "errors")

    async def _result(self, request: Request, batch_id: str, kind: Kind) -> Response:
        size, chunks = await self._batches.result(_tenant(request), batch_id, kind)
        headers = {"content-length": str(size)}
        return StreamingResponse(chunks, media_type=_JSONL[0], headers=headers)

    async def _sent(self, request: Request) -> _Sent:
        """Options, and the lines as bytes."""
        if _kind(request) in _JSONL:
            return _query(request), self._file(request)
        return await self._object(request)

    async def _file(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it comes, which never stands in memory."""
        declared, most = request.headers.get("content-length", ""), self._batches.options.file_bytes
        if declared.isdigit() and (len(declared) > 18 or int(declared) > most):
            raise BodyTooLarge(f"the lines have {declared} bytes; a batch may have {most}")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise BrokenBody("the lines are compressed; send them plain")
        stream, within_s = request.stream(), self._settings.body_timeout_s
        while True:
            try:
                async with asyncio.timeout(within_s):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise BodyTimeout(f"nothing more came within {within_s:g} seconds") from None
            if chunk is None:
                return
            yield chunk

    async def _object(self, request: Request) -> _Sent:
        settings, headers = self._settings, dict(request.scope["headers"])
        body = json_object(
            await read_body(request.receive, headers, settings.body_bytes, settings.body_timeout_s)
        )
        if body.get("webhook_url") is not None:
            raise InvalidInput(
                "webhook_url is not called by this service; ask GET /v1/batch/{id}", "webhook_url"
            )
        given = [name for name in ("input", "input_url") if body.get(name) is not None]
        if len(given) != 1:
            raise InvalidInput("give the lines as input, or their address as input_url", "input")
        options = {name: body[name] for name in OPTIONS if body.get(name) is not None}
        if given == ["input"]:
            return options, _written(_objects(body["input"]))
        return options, _whole(await self._fetched(body["input_url"]))

    async def _fetched(self, address: object) -> bytes:
        if type(address) is not str:
            raise InvalidInput("input_url must be a string", "input_url")
        if self._source is None:
            raise InvalidInput(
                "input_url is an address, and none is fetched here (media.fetch); "
                f"send the lines as input, or as {_JSONL[0]}",
                "input_url",
            )
        most = self._settings.body_bytes
        return await self._source.read(
            address, Wanted("input_url", "file", most, "limits.body_bytes")
        )


_LINES = (
    {"custom_id": "one", "body": {"input": "Hello world"}},
    {"custom_id": "two", "body": {"input": ["Several", "at once"]}},
)
_EXAMPLE = {"model": "all-MiniLM-L6-v2", "dimensions": 384, "input": _LINES}


def _parameter(name: str, description: str, **schema: object) -> Described:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_CREATE: Described = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": BatchRequest.model_json_schema(), "example": _EXAMPLE},
            _JSONL[0]: {
                "schema": {"type": "string"},
                "example": "".join(orjson.dumps(one).decode() + "\n" for one in _LINES),
            },
        },
    },
    "parameters": [
        _parameter("model", "Of JSONL: the model.", type="string"),
        _parameter("task", "Of JSONL: the task, where lines name none.", type="string"),
        _parameter("dimensions", "Of JSONL, likewise.", type="integer", minimum=1),
        _parameter("normalized", "Of JSONL, likewise.", type="boolean"),
        _parameter("embedding_type", "Of JSONL, likewise.", type="string"),
    ],
}
_LIST: Described = {
    "parameters": [
        _parameter(
            "limit",
            "How many.",
            type="integer",
            default=_LISTED,
            minimum=1,
            maximum=_MOST_LISTED,
        )
    ]
}


def _tenant(request: Request) -> Tenant:
    tenant: Tenant = request.scope[TENANT]
    return tenant


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _query(request: Request) -> dict[str, object]:
    """The options in an address."""
    options: dict[str, object] = {}
    for name, value in request.query_params.multi_items():
        if name not in OPTIONS:
            raise InvalidInput(f"{name!r} is unknown; there are {', '.join(sorted(OPTIONS))}", name)
        options[name] = _FLAGS.get(value, value)
    return options


def _objects(given: object) -> Sequence[dict[str, object]]:
    if type(given) is not list:
        raise InvalidInput("input must be a list of objects with custom_id and body", "input")
    for place, line in enumerate(given):
        if type(line) is not dict:
            raise InvalidInput(f"input.{place} must be an object", f"input.{place}")
    return given


async def _written(lines: Sequence[dict[str, object]]) -> AsyncIterator[bytes]:
    chunk = bytearray()
    for line in lines:
        chunk += orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        if len(chunk) >= _CHUNK:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _status(request: Request, batch: Batch) -> dict[str, object]:
    tally, ended = batch.tally, batch.ended is not None
    return {
        "batch_id": batch.id,
        "status": batch.status,
        "model": batch.model,
        "created_at": _time(batch.created),
        "completed_at": None if batch.ended is None else _time(batch.ended),
        "expires_at": _time(batch.expires),
        "output_url": _address(request, batch, "output") if ended and tally.completed else None,
        "error_file_url": _address(request, batch, "errors") if ended and tally.failed else None,
        "error": batch.error,
        "stats": {
            "total": batch.lines,
            "completed": tally.completed,
            "failed": tally.failed,
            "total_tokens": tally.tokens,
        },
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:-6] + "Z"


def _address(request: Request, batch: Batch, kind: Kind) -> str:
    """As the caller reached this service; behind TLS that ends elsewhere, as the proxy says."""
    base, scheme = request.base_url, request.headers.get("x-forwarded-proto", "")
    if scheme in ("http", "https"):
        base = base.replace(scheme=scheme)
    return f"{base}v1/batch/{batch.id}/{kind}"
