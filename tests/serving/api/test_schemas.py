"""What `/openapi.json` says is what the parsers and the writers do."""

from __future__ import annotations

from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from serving.api.app import ApiSettings, create_app
from serving.api.dialects import routes
from serving.api.dialects.jina import NAMES
from serving.api.routes import Route
from serving.api.schemas import EmbeddingsRequest
from serving.errors import PolyvecError
from tests.services import able, client, minilm, service, tasked, toy

APP = create_app(service(minilm()[0], tasked(), toy(), able()), ApiSettings())
DOCUMENT: dict[str, Any] = APP.fastapi.openapi()
schema = schemathesis.openapi.from_dict(DOCUMENT)
schema.app = APP
ROUTES = routes()
EXAMPLES = [
    pytest.param(route, title, id=f"{route.operation_id}-{title}")
    for route in ROUTES
    for title in route.examples
]


def no_500(context: object, answer: schemathesis.Response, case: schemathesis.Case) -> None:
    """A failure that nobody foresaw. A 504 is right where a request gives itself a millisecond."""
    assert answer.status_code != 500


def described(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


@schema.parametrize()
@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_nothing_that_the_description_allows_or_forbids_is_a_500(case: schemathesis.Case) -> None:
    case.call_and_validate(
        checks=[
            no_500,
            status_code_conformance,
            content_type_conformance,
            response_schema_conformance,
            unsupported_method,
        ]
    )


def test_every_name_of_every_field_is_described_and_nothing_else() -> None:
    fields = set(EmbeddingsRequest.model_fields) - {"user"}
    assert fields == {name for names in NAMES.values() for name in names}


def content(route: Route, part: str) -> dict[str, Any]:
    """The schema of a route's path: of its request or of its answer."""
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    found = operation["requestBody"] if part == "request" else operation["responses"]["200"]
    return found["content"]["application/json"]["schema"] | {"components": DOCUMENT["components"]}


@pytest.mark.parametrize(("route", "title"), EXAMPLES)
async def test_an_example_is_valid_and_is_answered_as_described(route: Route, title: str) -> None:
    example = route.examples[title]
    assert route.request is not None
    jsonschema_rs.validate(described(route.request.__name__), example)
    jsonschema_rs.validate(content(route, "request"), example)
    names = ("jina-embeddings-v4", "Qwen3-Reranker-0.6B")
    async with client(service(minilm()[0], able(aliases=names))) as http:
        answer = await http.post(route.path, json=example)
    assert answer.status_code == 200, answer.text
    jsonschema_rs.validate(content(route, "answer"), answer.json())


def test_every_error_that_a_route_may_give_is_described_with_an_example() -> None:
    for route in ROUTES:
        responses = DOCUMENT["paths"][route.path][route.method.lower()]["responses"]
        assert {int(status) for status in responses} == {200, *route.errors}
        for status in route.errors:
            content = responses[str(status)]["content"]["application/json"]
            assert content["schema"]["$ref"].endswith(("ErrorBody", "InvalidBody"))
            for code, example in content["examples"].items():
                assert example["value"]["code"] == code


def test_every_status_of_an_error_is_described_somewhere() -> None:
    def kinds(kind: type[PolyvecError]) -> set[type[PolyvecError]]:
        return {kind}.union(*(kinds(one) for one in kind.__subclasses__()))

    statuses = {kind.status for kind in kinds(PolyvecError) if kind.__module__ == "serving.errors"}
    told = {status for route in ROUTES for status in route.errors}
    assert statuses - told == {405}  # a method that is not described


async def test_refusals_are_as_described() -> None:
    async with client(service()) as http:
        for body, name in (({}, "InvalidBody"), ({"model": "x", "input": "a"}, "ErrorBody")):
            answer: httpx.Response = await http.post("/v1/embeddings", json=body)
            jsonschema_rs.validate(described(name), answer.json())
