"""Errors and headers as bytes: one error body for the clients of every dialect.

`detail` is always a string (Elastic and Weaviate cast it, langchain and haystack index it), `error`
is what OpenAI's clients read and `message` what Cohere's do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import TypeAlias

import orjson

from serving.api.fields import shortened
from serving.errors import InvalidInput, LimitExceeded, PolyvecError
from serving.limits.refusing import decision_of
from serving.values import Stages

__all__ = [
    "REQUEST_ID",
    "TENANT",
    "Headers",
    "error_body",
    "error_headers",
    "error_value",
    "key_of",
    "request_id",
    "timing_headers",
]

Headers: TypeAlias = list[tuple[bytes, bytes]]

REQUEST_ID = "polyvec.request_id"
"""The key of an ASGI scope that holds the request's id, as bytes."""

TENANT = "polyvec.tenant"
"""The key of an ASGI scope that holds the request's `Tenant`, where the route is guarded."""

_TIMING = b"prepare;dur=%.2f, queue;dur=%.2f, infer;dur=%.2f, encode;dur=%.2f, total;dur=%.2f"
_SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def request_id(sent: bytes | None) -> bytes:
    """The caller's own id where it is 1 to 128 visible ASCII characters, else a new one."""
    if sent is not None and _SANE_ID.fullmatch(sent):
        return sent
    return b"%032x" % getrandbits(128)


def key_of(headers: Mapping[bytes, bytes]) -> tuple[bytes | None, bytes | None]:
    """What a request says of who sent it: `authorization`, and a key's own header."""
    return headers.get(b"authorization"), headers.get(b"x-api-key") or headers.get(b"api-key")


def error_body(error: PolyvecError, request: bytes) -> bytes:
    """`error_value` as JSON."""
    return orjson.dumps(error_value(error, request), default=repr)


def error_value(error: PolyvecError, request: bytes) -> dict[str, object]:
    """`detail`, `code`, `request_id`, `message`, `error`; and `errors` for 422."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    body: dict[str, object] = {
        "detail": error.message,
        "code": error.code,
        "request_id": request.decode(),
        "message": error.message,
        "error": {
            "message": error.message,
            "type": _TYPES.get(error.status, kind),
            "param": error.field or None,
            "code": error.code,
        },
    }
    if error.status == 422:
        body["errors"] = [
            {"field": field, "message": message, "type": kind, "input": shortened(value)}
            for field, message, kind, value in _problems(error)
        ]
    return body


def _problems(error: PolyvecError) -> Sequence[tuple[str, str, str, object]]:
    if isinstance(error, InvalidInput):
        return error.problems
    return ((error.field or "", error.message, "value_error", None),)


def error_headers(error: PolyvecError) -> Headers:
    """When to come back, on a refusal that is not for ever; and for 401 what is wanted.

    Not for a refusal of the quotas: `serving.limits.headers` says that with their standing.
    """
    if error.status == 401:
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, LimitExceeded) and decision_of(error) is not None:
        return []
    seconds = error.retry_after_s
    if seconds is None or error.status not in (429, 503):
        return []
    whole = max(1, math.ceil(seconds))
    return [
        (b"retry-after", b"%d" % whole),
        (b"retry-after-ms", b"%d" % max(1, math.ceil(seconds * 1000))),
    ]


def timing_headers(stages: Stages, encode_s: float, total_s: float) -> Headers:
    """`server-timing` by stage and `openai-processing-ms`."""
    timing = _TIMING % (
        stages.prepare_s * 1e3,
        stages.queue_s * 1e3,
        stages.infer_s * 1e3,
        encode_s * 1e3,
        total_s * 1e3,
    )
    return [(b"server-timing", timing), (b"openai-processing-ms", b"%d" % math.ceil(total_s * 1e3))]
