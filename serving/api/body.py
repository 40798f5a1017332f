"""A request's body: read within bounds of size and time, and parsed as JSON. Knows no fields."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson
from starlette.types import Receive

from serving.errors import BodyTimeout, BodyTooLarge, BrokenBody, InvalidInput

__all__ = ["ClientGone", "json_object", "read_body"]

_KINDS = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


class ClientGone(Exception):
    """The client has hung up; there is nobody to answer."""


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], limit: int, timeout_s: float
) -> bytes:
    """The whole body, of at most `limit` bytes and within `timeout_s`.

    Raises `BodyTooLarge` before reading where the client declares more, `BodyTimeout`, `BrokenBody`
    for a compressed one, and `ClientGone`.
    """
    _refuse_by_headers(headers, limit)
    try:
        async with asyncio.timeout(timeout_s):
            return await _whole(receive, limit)
    except TimeoutError as late:
        raise BodyTimeout(f"the body did not arrive within {timeout_s:g} seconds") from late


async def _whole(receive: Receive, limit: int) -> bytes:
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _refuse_by_headers(headers: Mapping[bytes, bytes], limit: int) -> None:
    declared = headers.get(b"content-length")
    # 18 digits hold any size; more would be a long parse.
    if declared and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.lower() not in (b"", b"identity"):
        name = coding[:40].decode("latin-1")
        raise BrokenBody(f"the body is compressed (Content-Encoding: {name}); send it plain")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body is larger than the {limit} bytes that one request may have; "
        "base64 makes an image a third larger"
    )


def json_object(body: bytes) -> dict[str, object]:
    """The JSON object that `body` is, whatever the Content-Type says.

    Raises `BrokenBody` for what is not JSON (RFC 8259: no NaN, no lone surrogates, UTF-8) and
    `InvalidInput` for JSON that is not an object.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body.strip():
            raise BrokenBody("the body is empty; send a JSON object") from error
        raise BrokenBody(f"the body is not valid JSON: {error}") from error
    if type(value) is dict:
        return value
    kind = _KINDS.get(type(value), "a number")
    raise InvalidInput(f"the body must be a JSON object, not {kind}", "")
