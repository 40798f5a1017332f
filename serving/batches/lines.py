"""A line of a batch: what it asks for, and what is written of it. Lines are shaped as OpenAI's."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from serving.errors import BrokenBody, InvalidInput, PolyvecError
from serving.values import Answer, Ask

__all__ = ["Line", "Reader", "Reading", "answered", "failed", "fields_of", "parse"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A request body, read: what to ask, and how the answer is written as a response body."""

    ask: Ask
    write: Callable[[Answer], Coroutine[None, None, bytes]]


Reader: TypeAlias = Callable[[Mapping[str, object]], Reading]
"""Reads a request body, in the words of the wire; raises `Refused` for what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Line:
    """The line of that `number` (1 is the first), with its caller's own id where it has one.

    `body` is the error where it has none.
    """

    number: int
    custom_id: str | None
    body: Mapping[str, object] | PolyvecError


def parse(raw: bytes, number: int) -> Line:
    """A line as it is in the file."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return Line(number, None, BrokenBody(f"the line is not valid JSON: {error}"))
    if type(value) is not dict:
        return Line(number, None, InvalidInput("the line must be a JSON object", ""))
    name, body = value.get("custom_id"), value.get("body")
    if name is not None and type(name) is not str:
        return Line(number, None, InvalidInput("custom_id must be a string", "custom_id"))
    if type(body) is not dict:
        words = "body must be an object, the body of a request to /v1/embeddings"
        return Line(number, name, InvalidInput(words, "body"))
    return Line(number, name, body)


def fields_of(body: Mapping[str, object], options: Mapping[str, object]) -> dict[str, object]:
    """The body with the batch's options, where it says nothing of its own."""
    return {**options, **{name: value for name, value in body.items() if value is not None}}


def answered(batch: str, line: Line, body: bytes) -> bytes:
    """The line of the output file."""
    return b'%b,"response":{"status_code":200,"request_id":%b,"body":%b},"error":null}\n' % (
        _head(batch, line),
        orjson.dumps(f"{batch}-{line.number}"),
        body,
    )


def failed(batch: str, line: Line, error: PolyvecError) -> bytes:
    """The line of the error file; `line` in it is the number."""
    said = {
        "code": error.code,
        "message": error.message,
        "param": error.field or None,
        "line": line.number,
    }
    return b'%b,"response":null,"error":%b}\n' % (_head(batch, line), orjson.dumps(said))


def _head(batch: str, line: Line) -> bytes:
    identifier = orjson.dumps(f"{batch}-{line.number}")
    return b'{"id":%b,"custom_id":%b' % (identifier, orjson.dumps(line.custom_id))
