"""What a dialect hands to the app: for a method and a path, who answers and how it is described.

Several dialects may have the same path. Each but one then says which bodies are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import BaseModel

from serving.api.body import json_object
from serving.api.exchange import Reply, Verb
from serving.calls import Call
from serving.errors import Refused
from serving.service import Service

__all__ = ["OWN", "Answerer", "Body", "Claim", "Ends", "Route", "Sent", "grouped", "verb"]

OWN = "Embeddings"
"""The chapter of what is asked as OpenAI's and Jina's clients do."""

Body: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Sent:
    """What came: the `body`, empty for a GET, and whether its inputs may be token ids."""

    body: Body
    token_ids: bool = False


Answerer: TypeAlias = Callable[[Service, Call, Sent], Coroutine[None, None, Reply]]
Claim: TypeAlias = Callable[[Body], bool]


@dataclass(frozen=True, slots=True)
class Route:
    """One path of a dialect. The types describe only; `answer` reads the body itself.

    `claims` says whether a body is this dialect's; None takes what no other route of the path does.
    `examples` are request bodies by title; `errors` the statuses that a caller may meet. `words`
    are the dialect's names of what the house calls `dimensions`, `task` and so on; `tag` is the
    chapter of the document.
    """

    method: str
    path: str
    answer: Answerer
    operation_id: str
    summary: str
    request: type[BaseModel] | None
    response: object
    examples: Mapping[str, dict[str, object]] = field(default_factory=dict)
    errors: tuple[int, ...] = (400, 401, 403, 404, 408, 413, 422, 429, 500, 503, 504)
    claims: Claim | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    tag: str = OWN


Ends: TypeAlias = Mapping[tuple[str, str], Sequence[Route]]


def grouped(routes: Sequence[Route]) -> Ends:
    """The routes of each method and path, the one without `claims` last.

    Raises ValueError where a path has several of those, or none.
    """
    ends: dict[tuple[str, str], list[Route]] = {}
    for route in sorted(routes, key=lambda one: one.claims is None):
        ends.setdefault((route.method, route.path), []).append(route)
    for (method, path), some in ends.items():
        if sum(route.claims is None for route in some) != 1:
            names = ", ".join(route.operation_id for route in some)
            raise ValueError(f"of {method} {path}, exactly one route claims nothing: {names}")
    return ends


def verb(routes: Sequence[Route], service: Service, token_ids: bool) -> Verb:
    """What answers one path: the first of its routes to claim a body, which is parsed once."""
    parses = routes[0].method == "POST"

    async def answer(call: Call) -> Reply:
        body = json_object(call.body) if parses else {}
        route = next(one for one in routes if one.claims is None or one.claims(body))
        try:
            return await route.answer(service, call, Sent(body, token_ids))
        except Refused as refused:
            field, dot, place = (refused.field or "").partition(".")
            if field not in route.words:
                raise
            message, _, *rest = refused.args
            raise type(refused)(message, route.words[field] + dot + place, *rest) from refused

    return answer
