"""Our own description takes every example of Jina's, for the models that are known here.

Tasks and abilities are read from tiny checkpoints in the models' own layouts; only the width of
vectors is the hosted models'.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from serving.api.app import ApiSettings, create_app
from serving.engines import EngineOptions, open_engine
from serving.limits.gate import Gate
from serving.media import MediaOptions
from serving.models.catalog import KNOWN, Entry
from serving.models.loading import load_spec
from serving.models.spec import Listwise
from serving.preparing import open_preparer
from serving.service import Served, Service
from tests.house.source import ROOT
from tests.services import CountingPreparer, HashEngine, client
from tests.upstream import build

CONTRACT = ROOT.parent / "shared" / "contracts" / "jina-openapi.json"
# The layout of each model that the contract has and we know.
LAYOUTS = {
    "jina-embeddings-v3": "jina_v3",
    "jina-embeddings-v4": "jina_v4",
    "jina-embeddings-v5-text-small": "jina_v5_small",
    "jina-embeddings-v5-text-nano": "jina_v5_nano",
    "jina-reranker-m0": "jina_reranker_m0",
    "jina-reranker-v3": "jina_reranker_v3",
}
PATHS = ("/v1/embeddings", "/v1/rerank", "/v1/classify")


def contract() -> dict[str, Any]:
    """The contract; none of its examples where it does not lie beside this checkout."""
    return json.loads(CONTRACT.read_text()) if CONTRACT.exists() else {"paths": {}}


def schemas(node: object) -> list[str]:
    """The names of every schema that a node refers to."""
    if isinstance(node, dict):
        own = [str(node["$ref"]).rpartition("/")[2]] if "$ref" in node else []
        return own + [name for value in node.values() for name in schemas(value)]
    return [name for value in node for name in schemas(value)] if isinstance(node, list) else []


def examples() -> list[tuple[str, dict[str, Any]]]:
    """Every example of a request for a model that is known here, with its path."""
    said, found = contract(), []
    for path in PATHS:
        body = said["paths"].get(path, {}).get("post", {}).get("requestBody", {})
        for name in dict.fromkeys(schemas(body)):
            schema = said["components"]["schemas"][name]
            every = [
                *schema.get("examples", []),
                *([schema["example"]] if "example" in schema else []),
            ]
            found += [(path, one) for one in every if one.get("model") in LAYOUTS]
    return found


EXAMPLES = examples()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """The models of the contract, as wide as the hosted ones are."""
    folder, every = tmp_path_factory.mktemp("upstream"), {}
    for name, layout in LAYOUTS.items():
        spec = load_spec(Entry(name, str(build(layout, folder))))
        if isinstance(spec.reranker, Listwise):  # its answers need to know where documents end
            engine = open_engine("torch", spec, EngineOptions(dtype="float32", threads=1))
            every[name] = Served(spec, open_preparer(spec, MediaOptions()), engine)
            continue
        if spec.reranker is None:
            spec = replace(spec, dimensions=2048, least_dimensions=1)
        every[name] = Served(spec, CountingPreparer(), HashEngine(spec.dimensions))
    return Service(every, Gate(64, 1 << 20), 2048)


@pytest.mark.parametrize(("path", "example"), EXAMPLES, ids=lambda one: str(one)[:60])
async def test_an_example_of_jinas_is_valid_and_answered(
    served: Service, path: str, example: dict[str, Any]
) -> None:
    document: dict[str, Any] = create_app(served, ApiSettings()).fastapi.openapi()
    body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    jsonschema_rs.validate(body["schema"] | {"components": document["components"]}, example)
    async with client(served) as http:
        answer = await http.post(path, json=example)
    assert answer.status_code == 200, answer.text


@pytest.mark.skipif(not CONTRACT.exists(), reason="Jina's contract is not beside this checkout")
def test_the_contract_has_examples_for_the_models_that_are_known_here() -> None:
    assert {example["model"] for _, example in EXAMPLES} >= set(LAYOUTS) - {
        "jina-embeddings-v5-text-nano"
    }
    assert set(LAYOUTS) <= {entry.id for entry in KNOWN}
