"""openai of Python and of npm, and langchain-openai, unchanged."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.clients.conftest import MODEL, SEEING, TEXTS

NODE = Path(__file__).with_name("node")


def test_openai(url: str, right: Callable[..., None]) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(api_key="any", base_url=f"{url}/v1") as client:
        answer = client.embeddings.create(model=MODEL, input=TEXTS)
        right([one.embedding for one in answer.data])
        assert answer.usage.total_tokens > len(TEXTS)
        assert next(iter(client.models.list())).id == MODEL
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="gpt-9", input="a")
        assert missing.value.code == "INPUT_MODEL_NOT_FOUND"
        with pytest.raises(openai.UnprocessableEntityError, match="token ids"):
            client.embeddings.create(model=MODEL, input=[[1, 2, 3]])


def test_openai_async(url: str, right: Callable[..., None]) -> None:
    openai = pytest.importorskip("openai")

    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(api_key="any", base_url=f"{url}/v1") as client:
            answers = [client.embeddings.create(model=MODEL, input=text) for text in TEXTS]
            return [one.data[0].embedding for one in await asyncio.gather(*answers)]

    right(asyncio.run(ask()))


def test_openai_of_npm(url: str, right: Callable[..., None]) -> None:
    node = shutil.which("node")
    if node is None or not (NODE / "node_modules" / "openai").is_dir():
        pytest.skip("the openai client of npm is not installed; make clients does")
    asked = {"URL": f"{url}/v1", "MODEL": MODEL, "SEEING": SEEING, "TEXTS": json.dumps(TEXTS)}
    told = subprocess.run(
        [node, "ask.mjs"], cwd=NODE, env=os.environ | asked, capture_output=True, timeout=60
    )
    assert told.returncode == 0, told.stderr.decode()
    found = json.loads(told.stdout)
    right(found["vectors"])
    right(found["floats"])
    assert found["refused"] == [404, "INPUT_MODEL_NOT_FOUND", "model"]
    assert MODEL in found["models"]


def test_langchain_openai(url: str, right: Callable[..., None]) -> None:
    langchain = pytest.importorskip("langchain_openai")
    embeddings = langchain.OpenAIEmbeddings(
        model=MODEL, api_key="any", base_url=f"{url}/v1", check_embedding_ctx_length=False
    )
    right(embeddings.embed_documents(TEXTS))
    right([embeddings.embed_query(TEXTS[0])], TEXTS[:1])
    right(asyncio.run(embeddings.aembed_documents(TEXTS)))
    assert np.shape(embeddings.embed_documents(["a"] * 70)) == (70, 384)
