"""`/openapi.json`: routes that FastAPI never runs described to it, every error with an example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.api.rendering import error_value
from serving.api.routes import Route
from serving.api.schemas import ErrorBody, InvalidBody
from serving.errors import (
    BodyTimeout,
    BodyTooLarge,
    BrokenBody,
    ConcurrencyExceeded,
    DeadlinePassed,
    Forbidden,
    ImageLimitExceeded,
    InputTooLarge,
    InvalidInput,
    InvalidKey,
    MediaInvalid,
    MediaTooLarge,
    MediaUnreachable,
    MethodNotAllowed,
    MissingKey,
    ModalityNotSupported,
    ModelNotFound,
    MonthlyLimitExceeded,
    Overloaded,
    PolyvecError,
    RequestLimitExceeded,
    ResourceNotFound,
    TaskNotFound,
    TokenLimitExceeded,
    TokenRateExceeded,
    Unavailable,
)

__all__ = ["Described", "document", "error_responses", "operation"]

# A JSON document's nodes are of any kind: the one place where the wire's description needs `Any`.
Described = dict[str, Any]

_MODEL = "all-MiniLM-L6-v2"
_REQUEST = b"03f58cd9da22fabf"
_ERRORS: dict[int, tuple[str, tuple[PolyvecError, ...]]] = {
    400: (
        "The request cannot be served as it is",
        (
            BrokenBody("the body is not valid JSON: unexpected end of data: line 1 column 9"),
            TaskNotFound(f"{_MODEL} has no task 'summary'; its tasks: none", "task"),
            ModalityNotSupported(f"input 0 is an image; {_MODEL} embeds text only", "input.0"),
            TokenLimitExceeded(f"input 0 has 900 tokens; {_MODEL} takes 256", "input.0"),
        ),
    ),
    401: (
        "No key, or one that is not known",
        (
            MissingKey("no API key was sent; send it as Authorization: Bearer <key>"),
            InvalidKey("Invalid API key: it is not known here"),
        ),
    ),
    403: (
        "Known, but not allowed to use that",
        (Forbidden(f"this API key may not use the model 'x'; it may use {_MODEL}", "model"),),
    ),
    404: (
        "No such model or path",
        (
            ModelNotFound(f"there is no model 'x'; the models: {_MODEL}", "model"),
            ResourceNotFound("there is no /v1/embedding; see /docs"),
        ),
    ),
    405: ("The path has other methods; see `allow`", (MethodNotAllowed("GET /v1/embeddings"),)),
    408: ("The body came too slowly", (BodyTimeout("the body did not arrive within 30 seconds"),)),
    413: (
        "The body, or something in it, is too large",
        (
            BodyTooLarge("the body is larger than the 33554432 bytes that one request may have …"),
            MediaTooLarge("input.0 has 9437184 bytes; an image may have 8388608", "input.0"),
            InputTooLarge("an input of 30000 tokens does not fit this engine's memory", "input"),
        ),
    ),
    422: (
        "A field has the wrong type or value; `errors` names every one",
        (
            InvalidInput(
                "dimensions must be a whole number",
                "dimensions",
                (("dimensions", "must be a whole number", "int_type", "many"),),
            ),
            MediaInvalid("input.0 is no image that can be read", "input.0"),
            MediaUnreachable("input.0 is an address, and none are fetched here", "input.0"),
        ),
    ),
    429: (
        "A quota refuses; nothing is charged, and `retry-after` says when the same request fits",
        (
            RequestLimitExceeded("the limit is 60 requests per minute …", None, 1.0),
            TokenRateExceeded("the limit is 1000 tokens per minute …", None, 12.5),
            ImageLimitExceeded("the limit is 30 images per minute …", None, 2.0),
            ConcurrencyExceeded("the limit is 2 requests at the same time …", None, 1.0),
            MonthlyLimitExceeded("the limit is 1000000 tokens per calendar month …"),
        ),
    ),
    500: ("Something failed on our side", (PolyvecError("something failed on our side …"),)),
    503: (
        "Not now; `retry-after` says when",
        (Overloaded("64 requests are under way in this gateway"), Unavailable("no model answers")),
    ),
    504: ("The time ran out", (DeadlinePassed("the request's time ran out"),)),
}
_RETRY = {
    "retry-after": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
    "retry-after-ms": {"description": "The same in ms.", "schema": {"type": "integer"}},
}
_PARAMETERS: list[Described] = [
    {
        "name": "x-request-id",
        "in": "header",
        "description": "Comes back where it is 1 to 128 visible ASCII characters.",
        "schema": {"type": "string"},
    },
    {
        "name": "x-service-class",
        "in": "header",
        "description": "`bulk` work waits for `interactive` work; the default is the tenant's.",
        "schema": {"type": "string", "enum": ["interactive", "bulk"]},
    },
    {
        "name": "idempotency-key",
        "in": "header",
        "description": "The same body under the same key is billed once, however often it is sent.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    {
        "name": "x-request-timeout-ms",
        "in": "header",
        "description": "Less time than the server's own limit.",
        "schema": {"type": "integer", "minimum": 1},
    },
]


def error_responses(*statuses: int) -> dict[int | str, Described]:
    """What FastAPI's `responses` takes, for those statuses."""
    described: dict[int | str, Described] = {}
    for status in statuses:
        description, errors = _ERRORS[status]
        examples = {error.code: {"value": error_value(error, _REQUEST)} for error in errors}
        described[status] = {
            "model": InvalidBody if status == 422 else ErrorBody,
            "description": description,
            "content": {"application/json": {"examples": examples}},
        }
        if status in (429, 503):
            described[status]["headers"] = _RETRY
    return described


def operation(routes: Sequence[Route]) -> Described:
    """The part of an operation that FastAPI cannot read from a function: its body and headers.

    Of several bodies the first is that of the route which claims nothing.
    """
    requests = [route.request for route in reversed(routes) if route.request]
    if not requests:
        return {"parameters": _PARAMETERS}
    schemas = [{"$ref": f"#/components/schemas/{request.__name__}"} for request in requests]
    content = {
        "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas},
        "examples": {
            title: {"value": value}
            for route in reversed(routes)
            for title, value in route.examples.items()
        },
    }
    return {
        "requestBody": {"required": True, "content": {"application/json": content}},
        "parameters": _PARAMETERS,
    }


def document(app: FastAPI, requests: list[type[BaseModel]]) -> Described:
    """The whole OpenAPI document of `app`, with the request models it does not know of."""
    described = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        license_info=app.license_info,
        tags=app.openapi_tags,
    )
    _, models = models_json_schema(
        [(model, "validation") for model in requests], ref_template="#/components/schemas/{model}"
    )
    described["components"]["schemas"].update(models["$defs"])
    return described
