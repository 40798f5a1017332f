"""Every file of this folder is a request and the very answer to it, byte for byte of its JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.models.spec import ModelSpec, TaskSpec
from serving.values import Prepared, Vectors
from tests.services import HashEngine, able, client, everything, service, toy

GOLDEN = {
    file.stem: json.loads(file.read_text()) for file in sorted(Path(__file__).parent.glob("*.json"))
}


class Still(HashEngine):
    """The same vector for everything: halves, so that every form of it is exact."""

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        """One row an input."""
        row = np.array([0.5, -0.5, 0, 0.25, -0.25, 0.5, -0.5, 1], np.float32)
        array = np.tile(row[: prepared.output.dimensions], (len(prepared.lengths), 1))
        return everything(prepared, array)


def golden() -> ModelSpec:
    tasks = (TaskSpec("retrieval.query", "query: ", ("query",)), TaskSpec("retrieval.passage"))
    return toy(
        id="golden",
        aliases=("org/golden",),
        source="org/golden",
        revision="0123abc",
        licence="apache-2.0",
        created=1700000000,
        tasks=tasks,
        default_task="retrieval.passage",
        matryoshka=(4,),
    )


@pytest.mark.parametrize("name", GOLDEN)
async def test_an_answer_is_the_golden_one(name: str) -> None:
    exchange: dict[str, Any] = GOLDEN[name]
    request, expected = exchange["request"], exchange["response"]
    content = request["raw"] if "raw" in request else json.dumps(request.get("body"))
    async with client(service(golden(), able(), engine=Still(8))) as http:
        answer = await http.request(
            request["method"],
            request["path"],
            content=content if request["method"] == "POST" else None,
            headers={"x-request-id": "golden"} | request.get("headers", {}),
        )
    assert answer.status_code == expected["status"]
    for header, value in expected["headers"].items():
        assert answer.headers.get(header) == value
    written = json.dumps(answer.json(), ensure_ascii=False)
    assert written == json.dumps(expected["body"], ensure_ascii=False)


def test_there_are_golden_files() -> None:
    assert len(GOLDEN) >= 10
