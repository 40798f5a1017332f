"""Answers with more than a vector: multi-vectors, sparse weights, the pages of a document."""

from __future__ import annotations

import base64

import httpx
import numpy as np


async def post(http: httpx.AsyncClient, **body: object) -> dict[str, object]:
    answer = await http.post("/v1/embeddings", json={"model": "able", "input": "hi"} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


async def test_every_form_of_an_answer_has_the_same_numbers(http: httpx.AsyncClient) -> None:
    body = {"model": "able", "input": ["ab", "", "c" * 50], "return_dense": True}
    body |= {"return_multivector": True, "return_sparse": True}
    floats = await post(http, **body)
    encoded = await post(http, **body, embedding_type="base64")
    several = await post(http, **body, embedding_type=["base64", "float"])
    for plain, packed, both in zip(floats["data"], encoded["data"], several["data"], strict=True):  # type: ignore[call-overload]
        assert list(plain) == ["object", "index", "embedding", "embeddings", "sparse_embedding"]
        assert both["embedding"] == {"base64": packed["embedding"], "float": plain["embedding"]}
        assert both["embeddings"] == {"base64": packed["embeddings"], "float": plain["embeddings"]}
        rows = [plain["embedding"], *plain["embeddings"]]
        for row, raw in zip(rows, [packed["embedding"], *packed["embeddings"]], strict=True):
            assert np.array(row, "<f4").tobytes() == base64.b64decode(raw)
        assert plain["sparse_embedding"] == packed["sparse_embedding"]


async def test_a_large_multivector_is_whole_and_in_order(http: httpx.AsyncClient) -> None:
    texts = ["a" * 3000, "b", "", "c" * 9000] * 5
    answer = await post(http, model="able", input=texts, return_multivector=True)
    alone = await post(http, model="able", input="b", return_multivector=True)
    data: list[dict[str, object]] = answer["data"]  # type: ignore[assignment]
    assert [len(one["embeddings"]) for one in data] == [len(text) + 2 for text in texts]  # type: ignore[arg-type]
    assert [one["index"] for one in data] == list(range(20))
    assert data[13]["embeddings"] == alone["data"][0]["embeddings"]  # type: ignore[index]


async def test_the_path_of_jinas_colbert_models_gives_multivectors(
    http: httpx.AsyncClient,
) -> None:
    body = {"model": "able", "input": ["a", "b"]}
    answer = await http.post("/v1/multi-vector", json=body | {"return_multivector": None})
    assert answer.json() == await post(http, **body, return_multivector=True)


async def test_an_entry_is_a_page_of_a_pdf(http: httpx.AsyncClient) -> None:
    answer = await post(http, model="able", input={"pdf": "x"})
    assert [one["index"] for one in answer["data"]] == [0, 1]  # type: ignore[attr-defined]
    assert answer["usage"] == {"prompt_tokens": 10, "total_tokens": 10, "image_tokens": 6}
