"""What a dialect hands to the app: for a method and a path, who answers and how it is described."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from serving.api.exchange import Reply
from serving.calls import Call
from serving.service import Service

__all__ = ["Answerer", "Route"]

Answerer = Callable[[Service, Call], Coroutine[None, None, Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path of a dialect. The pydantic models describe only; `answer` reads the body itself.

    `examples` are request bodies by title; `errors` the statuses that a caller may meet.
    """

    method: str
    path: str
    answer: Answerer
    operation_id: str
    summary: str
    request: type[BaseModel]
    response: type[BaseModel]
    examples: Mapping[str, dict[str, object]] = field(default_factory=dict)
    errors: tuple[int, ...] = (400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 504)
