"""The road on a real one-node Ray: what a client sees, and what survives."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest
from ray import serve

from deployments.local import LocalNode
from tests.deployments.conftest import KEYS, key_of

pytestmark = pytest.mark.ray

MINI = "all-MiniLM-L6-v2"
RELATED = [
    ("The cat sleeps on the sofa.", "A kitten is napping on the couch."),
    ("How do I reset my password?", "Steps to recover access to your account"),
    ("The central bank raised interest rates.", "Borrowing became more expensive this quarter."),
    ("She plays the violin in an orchestra.", "He is a cellist with the symphony."),
]
# Every related pair beats every unrelated one by at least this much cosine.
MARGIN = 0.05


def embed(http: httpx.Client, texts: list[str], **fields: object) -> np.ndarray:
    answer = http.post("/v1/embeddings", json={"model": MINI, "input": texts, **fields})
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float32)


def test_related_sentences_are_nearer_than_unrelated_ones(http: httpx.Client) -> None:
    left = embed(http, [pair[0] for pair in RELATED])
    right = embed(http, [pair[1] for pair in RELATED])
    cosines = left @ right.T
    unrelated = cosines[~np.eye(len(RELATED), dtype=bool)]
    assert cosines.diagonal().min() - unrelated.max() >= MARGIN


def test_an_unchanged_openai_client_gets_embeddings(node: LocalNode, http: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{node.address.url}/v1", api_key=KEYS["tests"].text)
    answer = client.embeddings.create(model=MINI, input=["a cat", "a dog"])
    mine = embed(http, ["a cat", "a dog"])
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 8
    assert np.allclose([row.embedding for row in answer.data], mine, atol=1e-5)


def test_a_jina_body_gets_what_it_asks_for(http: httpx.Client) -> None:
    body = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "input": [{"text": "a cat"}],
        "embedding_type": "base64",
        "task": None,
        "late_chunking": False,
        "normalized": True,
    }
    data = http.post("/v1/embeddings", json=body).json()["data"]
    vector = np.frombuffer(base64.b64decode(data[0]["embedding"]), "<f4")
    assert vector.shape == (384,) and abs(np.linalg.norm(vector) - 1) < 1e-5


def test_ready_names_every_model_once_it_answers(http: httpx.Client) -> None:
    assert http.get("/ready").status_code == 200
    listed = {row["id"] for row in http.get("/v1/models").json()["data"]}
    assert listed == {MINI, "null", "by-task", "tenants", "v4", "v4-noop"}


def test_a_task_reaches_the_group_that_is_its_own(http: httpx.Client) -> None:
    body = {"model": "by-task", "input": "x"}
    bodies = [body, {**body, "task": "retrieval.query"}]
    answers = [http.post("/v1/embeddings", json=body) for body in bodies]
    assert [a.status_code for a in answers] == [200, 200]
    assert answers[0].json()["usage"] != answers[1].json()["usage"]


def test_errors_from_the_engine_are_ours_after_the_hop(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings", json={"model": MINI, "input": "word " * 400})
    assert answer.status_code == 400
    assert answer.json()["code"] == "INPUT_TOKEN_LIMIT_EXCEEDED"


def test_a_large_answer_comes_whole(http: httpx.Client) -> None:
    texts = [f"text number {i}" for i in range(2048)]
    answer = http.post("/v1/embeddings", json={"model": "null", "input": texts})
    data = answer.json()["data"]
    assert [row["index"] for row in data] == list(range(2048))


def test_many_clients_at_once_get_their_own_answers(node: LocalNode) -> None:
    async def all_of_them() -> list[np.ndarray]:
        async with httpx.AsyncClient(
            base_url=node.address.url, timeout=60, headers=key_of("tests")
        ) as client:

            async def one(i: int) -> np.ndarray:
                body = {"model": "null", "input": f"text number {i % 8}"}
                answer = await client.post("/v1/embeddings", json=body)
                assert answer.is_success, answer.text
                return np.array(answer.json()["data"][0]["embedding"])

            return await asyncio.gather(*(one(i) for i in range(24)))  # the gateway takes 32

    vectors = asyncio.run(all_of_them())
    assert all(np.array_equal(vectors[i], vectors[i % 8]) for i in range(24))
    assert len({vector.tobytes() for vector in vectors}) == 8


def test_overload_is_answered_at_once_with_when_to_come_back(node: LocalNode) -> None:
    async def flood() -> list[tuple[int, float, str | None]]:
        limits = httpx.Limits(max_connections=300)
        async with httpx.AsyncClient(
            base_url=node.address.url, timeout=60, limits=limits, headers=key_of("tests")
        ) as client:

            async def one(i: int) -> tuple[int, float, str | None]:
                started = time.monotonic()
                texts = [f"{i} {j} " + "word " * 30 for j in range(8)]
                answer = await client.post("/v1/embeddings", json={"model": MINI, "input": texts})
                took = time.monotonic() - started
                return answer.status_code, took, answer.headers.get("retry-after")

            return await asyncio.gather(*(one(i) for i in range(150)))

    answers = asyncio.run(flood())
    refused = [answer for answer in answers if answer[0] != 200]
    assert {status for status, _, _ in answers} == {200, 503}
    assert all(after is not None and int(after) >= 1 for _, _, after in refused)
    assert len(refused) > 20 and len(answers) - len(refused) >= 20


def test_a_batch_is_not_refused_on_an_idle_server(http: httpx.Client) -> None:
    assert len(embed(http, [f"{i} " + "word " * 90 for i in range(32)])) == 32


def replicas(name: str) -> list[psutil.Process]:
    """Processes of a deployment that this session's Ray started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"ServeReplica:polyvec:{name}" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_replica_that_dies_under_load_loses_nothing(node: LocalNode) -> None:
    async def load() -> list[int]:
        async with httpx.AsyncClient(
            base_url=node.address.url, timeout=60, headers=key_of("tests")
        ) as client:

            async def one(i: int) -> int:
                body = {"model": MINI, "input": f"text {i} " + "word " * 30}
                return (await client.post("/v1/embeddings", json=body)).status_code

            async def worker(w: int) -> list[int]:
                return [await one(w * 100 + i) for i in range(20)]

            async def assassin() -> list[int]:
                await asyncio.sleep(0.5)
                os.kill(replicas(f"Replica:{MINI}")[0].pid, signal.SIGKILL)
                return []

            done = await asyncio.gather(*(worker(w) for w in range(8)), assassin())
            return [status for statuses in done for status in statuses]

    before = len(replicas(f"Replica:{MINI}"))
    statuses = asyncio.run(load())
    assert before == 2
    assert len(statuses) == 160 and set(statuses) == {200}


def test_a_client_that_goes_away_frees_its_place(node: LocalNode, http: httpx.Client) -> None:
    texts = [f"{i} " + "word " * 200 for i in range(400)]
    started = time.monotonic()
    with pytest.raises(httpx.TimeoutException):
        http.post("/v1/embeddings", json={"model": MINI, "input": texts}, timeout=0.7)
    embed(http, ["short"])
    # 400 texts of 200 tokens take this machine far longer than a short text behind one batch.
    assert time.monotonic() - started < 12


def test_a_replica_whose_engine_died_is_replaced_and_ready_says_why_until_then(
    node: LocalNode, http: httpx.Client
) -> None:
    [before] = replicas("Replica:null")
    handle: Any = serve.get_deployment_handle("Replica:null", "polyvec")
    # Serve's own last call to a replica: its engine is closed, and the process lives on.
    handle.broadcast("__del__").results(timeout_s=30)
    told = http.get("/ready")
    assert told.status_code == 503
    assert list(told.json()["reasons"]) == ["null"]
    body = {"model": "null", "input": "x"}
    assert http.post("/v1/embeddings", json=body).status_code == 503
    assert http.get("/live").status_code == 200
    until = time.monotonic() + 60
    while http.get("/ready").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert [process.pid for process in replicas("Replica:null")] != [before.pid]
    assert http.post("/v1/embeddings", json=body).status_code == 200
