"""Images on a real one-node Ray: from the preprocessor to a replica, past the gateway."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import ray
from PIL import Image
from ray._private.internal_api import memory_summary

from deployments.config import parse_config
from deployments.gateway import build_service
from deployments.local import LocalNode
from tests.deployments.conftest import MAX_PIXELS, key_of
from tests.services import client

pytestmark = pytest.mark.ray

TEXTS = ["A chart of sales.", "Ein Bild: naïve façade, 日本語."]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(form: str, *pictures: Image.Image) -> str:
    """The file in base64: a PNG of one picture, or a PDF with a page for each."""
    file = io.BytesIO()
    many: dict[str, Any] = {"append_images": pictures[1:], "save_all": True}
    pictures[0].save(file, form, **(many if form == "PDF" else {}))
    return base64.b64encode(file.getvalue()).decode()


PNG, WIDE = encoded("PNG", picture(300, 200)), encoded("PNG", picture(640, 100, 1))
PDF = encoded("PDF", picture(300, 200), picture(200, 300, 1), picture(100, 100, 2))
BODIES: dict[str, dict[str, Any]] = {
    "texts": {"input": TEXTS},
    "an image and a text": {"input": [{"image": PNG}, TEXTS[0]], "task": "retrieval.passage"},
    "an image in another spelling": {"input": f"data:image/png;base64,{PNG}"},
    "two images": {"input": [{"image": PNG}, {"bytes": WIDE}], "dimensions": 64},
    "a pdf": {"input": {"pdf": PDF}},
    "text and image as one": {"input": [{"content": [{"text": TEXTS[0]}, {"image": WIDE}]}]},
    "a small image": {"input": {"image": PNG}, "max_pixels": 20_000},
    "multi-vectors": {"input": [{"image": WIDE}, TEXTS[1]], "return_multivector": True},
    "both": {"input": [{"image": PNG}], "return_multivector": True, "return_dense": True},
    "chunks": {"input": TEXTS * 3, "late_chunking": True},
    "tokens": {"input": TEXTS, "return_multivector": True, "return_tokenized_input": True},
}
VECTORS = {"a pdf": 3, "chunks": 6, "texts": 2, "an image and a text": 2, "two images": 2}


def ask(http: httpx.Client, model: str = "v4", **body: Any) -> dict[str, Any]:
    answer = http.post("/v1/embeddings", json={"model": model, **body})
    assert answer.status_code == 200, answer.text[:500]
    value: dict[str, Any] = answer.json()
    return value


@pytest.fixture
async def alone(node: LocalNode, images: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The fused service of the same model, in this process."""
    raw = {"id": "v4", "source": str(images), "max_pixels": MAX_PIXELS}
    exact = {"engine": "torch", "dtype": "float32"}
    service = build_service(parse_config({"models": [{**raw, **exact}]}), {}, None)
    async with client(service) as http:
        yield http
    await service.close()


async def test_the_graph_answers_as_one_process_does(
    http: httpx.Client, alone: httpx.AsyncClient
) -> None:
    for name, body in BODIES.items():
        theirs = await asyncio.to_thread(ask, http, **body)
        ours = (await alone.post("/v1/embeddings", json={"model": "v4", **body})).json()
        assert theirs["usage"] == ours["usage"], name
        assert len(theirs["data"]) == VECTORS.get(name, len(ours["data"])) == len(ours["data"])
        for left, right in zip(theirs["data"], ours["data"], strict=True):
            assert list(left) == list(right), name
            assert left.get("tokenized_input") == right.get("tokenized_input")
            for key in ("embedding", "embeddings"):
                if key in left:
                    assert np.allclose(left[key], right[key], atol=1e-5), (name, key)


def test_the_tokens_of_images_are_told_and_bounded(http: httpx.Client) -> None:
    listed = http.get("/v1/models/v4").json()
    assert listed["max_pixels"] == MAX_PIXELS
    assert listed["input_modalities"] == ["text", "image"]
    whole, small = (ask(http, **BODIES[name])["usage"] for name in ("both", "a small image"))
    assert 0 < small["image_tokens"] < whole["image_tokens"] < whole["total_tokens"]
    assert "image_tokens" not in ask(http, **BODIES["texts"])["usage"]


def test_different_images_have_different_vectors(http: httpx.Client) -> None:
    one, other = ask(http, **BODIES["two images"])["data"]
    assert not np.allclose(one["embedding"], other["embedding"], atol=1e-2)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"input": {"image": "AAAA"}}, 422, "INPUT_MEDIA_INVALID"),
        ({"input": [TEXTS[0], {"image": PNG[:400]}]}, 422, "INPUT_MEDIA_INVALID"),
        ({"input": {"image": "https://example.com/a.png"}}, 422, "INPUT_MEDIA_UNREACHABLE"),
        ({"input": {"image": PNG}, "max_pixels": MAX_PIXELS + 1}, 422, "INPUT_INVALID"),
    ],
)
def test_what_is_wrong_with_an_image_is_told_across_the_hop(
    http: httpx.Client, body: dict[str, Any], status: int, code: str
) -> None:
    answer = http.post("/v1/embeddings", json={"model": "v4", **body})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_an_image_to_a_text_model_is_refused_before_it_is_looked_at(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings", json={"model": "null", "input": {"image": PNG}})
    assert (answer.status_code, answer.json()["code"]) == (400, "INPUT_MODALITY_NOT_SUPPORTED")


def processes(name: str) -> list[psutil.Process]:
    """Processes of a deployment that this session's Ray started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if f"ServeReplica:polyvec:{name}" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


async def load(node: LocalNode, victims: tuple[str, ...], rounds: int = 12) -> list[int]:
    """Statuses of many image requests, under which a process of each victim is killed."""
    async with httpx.AsyncClient(
        base_url=node.address.url, timeout=60, headers=key_of("tests")
    ) as http:
        bodies = [{"model": "v4-noop", **BODIES[name]} for name in ("both", "a pdf", "texts")]

        async def worker() -> list[int]:
            answers = [await http.post("/v1/embeddings", json=body) for body in bodies * rounds]
            return [answer.status_code for answer in answers]

        async def assassin() -> list[int]:
            for victim in victims:
                await asyncio.sleep(0.3)
                os.kill(processes(victim)[0].pid, signal.SIGKILL)
            return []

        done = await asyncio.gather(*(worker() for _ in range(4)), assassin())
    return [status for statuses in done for status in statuses]


def test_who_dies_under_image_load_loses_nothing(node: LocalNode) -> None:
    assert len(processes("Replica:v4-noop")) == 2
    statuses = asyncio.run(load(node, ("Replica:v4-noop", "Preprocessor")))
    assert statuses == [200] * 144


def kept_objects() -> int:
    here = ray.get_runtime_context().gcs_address  # another Ray may run on this machine
    told = re.search(r"(\d+) objects", memory_summary(here, stats_only=True))
    assert told is not None
    return int(told[1])


def test_pixels_are_freed_when_the_answer_is_out(node: LocalNode) -> None:
    most = kept_objects() + 8  # Serve has some of its own; 64 are made here
    statuses = asyncio.run(load(node, (), rounds=8))
    assert statuses == [200] * 96
    until = time.monotonic() + 20  # Ray frees in batches, once a second
    while kept_objects() > most and time.monotonic() < until:
        time.sleep(0.2)
    assert kept_objects() <= most
