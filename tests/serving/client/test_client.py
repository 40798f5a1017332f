"""The client over both wires against a real server: arrays, splitting, order, errors, retries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from serving.client import AsyncClient, Bounds, Client, Retries
from serving.encodings import encoding as encoding_of
from serving.errors import (
    DeadlinePassed,
    InvalidConfig,
    InvalidInput,
    InvalidKey,
    MissingKey,
    ModelNotFound,
    MonthlyLimitExceeded,
    Overloaded,
    PolyvecError,
    RequestLimitExceeded,
    Unavailable,
)
from serving.service import Service
from serving.values import Ask, Floats, Fused, Image, Pdf, Prepared, Text, Usage, Vectors
from tests.bank import Bank
from tests.services import MODEL, HashEngine, StuckEngine, able, call, minilm, service, toy

Wire = Callable[[Service], Awaitable[str]]

AT_ONCE = Retries(first_s=0.0)


class Recovering(HashEngine):
    """Fails so many times, then answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        super().__init__(8)
        self.failures, self.failure = failures, error

    async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
        self.error = self.failure if self.calls < self.failures else None
        return await super().embed(prepared, deadline)


async def reference(served: Service, *texts: str) -> Floats:
    ask = Ask("toy", tuple(map(Text, texts)))
    return (await served.embed(call(), ask)).vectors


async def test_vectors_come_as_an_array_in_order(wire: Wire) -> None:
    served = service(toy())
    texts = [f"text {number}" for number in range(50)]
    async with AsyncClient(await wire(served), bounds=Bounds(inputs=7)) as client:
        found = await client.embed(texts, "toy")
    np.testing.assert_array_equal(found.vectors, await reference(served, *texts))
    assert found.vectors.dtype == np.float32
    assert found.usage == Usage(sum(len(text) + 2 for text in texts))
    assert found.model == "toy"


async def test_one_text_is_a_list_of_one(wire: Wire) -> None:
    async with AsyncClient(await wire(service(toy()))) as client:
        assert (await client.embed("a", "toy")).vectors.shape == (1, 8)
        assert (await client.embed(Text("a"), "toy")).vectors.shape == (1, 8)


@pytest.mark.parametrize(
    ("encoding", "dtype", "width"),
    [("int8", "i1", 8), ("uint8", "u1", 8), ("binary", "i1", 1), ("ubinary", "u1", 1)],
)
async def test_other_number_types_come_as_their_own(
    wire: Wire, encoding: str, dtype: str, width: int
) -> None:
    served = service(toy())
    async with AsyncClient(await wire(served)) as client:
        found = await client.embed(["a", "b"], "toy", encoding=encoding)
    expected = encoding_of(encoding).encode(await reference(served, "a", "b"))
    assert found.vectors.dtype == np.dtype(dtype) and found.vectors.shape == (2, width)
    np.testing.assert_array_equal(found.vectors, expected)


async def test_multi_vectors_and_sparse_weights_are_arrays_too(wire: Wire) -> None:
    async with AsyncClient(await wire(service(able())), bounds=Bounds(inputs=1)) as client:
        found = await client.embed(["ab", ""], "able", multi=True, sparse=True)
    assert [one.shape for one in found.multi] == [(4, 3), (2, 3)]
    assert found.vectors.shape == (2, 0)
    ids, weights = found.sparse[0]
    assert ids.tolist() == [1, 2, ord("a"), ord("b")]
    np.testing.assert_allclose(weights, 1 / (1 + ids), rtol=1e-6)


async def test_images_documents_and_fused_parts_are_inputs(wire: Wire) -> None:
    image = Image("https://x/y.png")
    inputs = [image, Pdf("https://x/y.pdf"), Fused((Text("a"), image)), "a"]
    async with AsyncClient(await wire(service(able()))) as client:
        found = await client.embed(inputs, "able", dimensions=2)
    assert found.vectors.shape == (5, 2)  # the document has two pages
    assert found.usage.image_tokens == 3 + 6 + 3


async def test_every_wish_is_understood(wire: Wire) -> None:
    served = service(able())
    async with AsyncClient(await wire(served)) as client:
        found = await client.embed(
            ["a", "b"],
            "able",
            role="query",
            normalized=False,
            truncate=True,
            late_chunking=True,
            service_class="bulk",
        )
        assert np.linalg.norm(found.vectors[0]) != pytest.approx(1, abs=1e-3)
        with pytest.raises(PolyvecError, match="max_pixels"):
            await client.embed("a", "able", max_pixels=1 << 30)


async def test_the_chunks_of_one_document_stay_together(wire: Wire) -> None:
    engine = HashEngine(8)
    served = service(able(), engine=engine)
    async with AsyncClient(await wire(served), bounds=Bounds(inputs=1)) as client:
        await client.embed(["a", "b", "c"], "able", late_chunking=True)
    assert engine.calls == 1


async def test_documents_are_ranked(wire: Wire) -> None:
    async with AsyncClient(await wire(service(minilm()[0]))) as client:
        found = await client.rerank("a", ["b", "a", "c"], MODEL, top_n=2)
    assert found.order[0] == 1 and len(found.order) == 2
    assert found.scores[0] == pytest.approx(1, abs=1e-6)
    assert found.usage.total_tokens > 0


async def test_inputs_are_classified(wire: Wire) -> None:
    labels = ["weather", "a kitten naps"]
    async with AsyncClient(await wire(service(minilm()[0]))) as client:
        found = await client.classify(["a kitten naps", "weather"], labels, MODEL)
    assert found.labels == ("a kitten naps", "weather") and found.groups == {}
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, atol=1e-6)
    assert [labels[at] for at in found.scores.argmax(axis=1)] == list(found.labels)
    assert found.model == MODEL and found.usage.total_tokens > 0


async def test_labels_in_groups_are_chosen_from_by_group(wire: Wire) -> None:
    groups = {"animal": ["a kitten", "a whale"], "place": ["a sofa", "the sea", "a road"]}
    async with AsyncClient(await wire(service(minilm()[0]))) as client:
        found = await client.classify(["a kitten", "the sea"], groups, MODEL)
        alone = [await client.classify(["the sea"], group, MODEL) for group in groups.values()]
    assert found.labels == () and found.scores.size == 0
    assert list(found.groups) == list(groups)
    assert found.groups["animal"].labels[0] == "a kitten"
    assert found.groups["place"].labels[1] == "the sea"
    for one, other in zip(found.groups.values(), alone, strict=True):
        assert one.labels[1:] == other.labels
        np.testing.assert_allclose(one.scores[1:], other.scores, atol=1e-6)


async def test_models_are_listed(wire: Wire) -> None:
    async with AsyncClient(await wire(service(toy(), able()))) as client:
        models = {one.id: one for one in await client.models()}
    assert models["toy"].sizes == (8,)
    assert models["able"].modalities == ("text", "image")


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        ({"inputs": "a", "model": "none"}, ModelNotFound, "there is no model"),
        ({"inputs": [], "model": "toy"}, InvalidInput, "is empty"),
        ({"inputs": "a", "model": "toy", "encoding": "float16"}, InvalidInput, "one of float"),
        ({"inputs": "a", "model": "toy", "dimensions": 3}, InvalidInput, "its sizes: 8"),
    ],
)
async def test_a_refusal_is_the_error_that_it_was_and_is_not_asked_again(
    wire: Wire, ask: dict[str, object], error: type[PolyvecError], words: str
) -> None:
    async with AsyncClient(await wire(service(toy()))) as client:
        with pytest.raises(error, match=words):
            await client.embed(**ask)  # type: ignore[arg-type]


async def test_a_key_is_sent_and_its_want_is_told(wire: Wire, tmp_path: Path) -> None:
    made = Bank(tmp_path, HashEngine(8), False)
    url = await wire(made.service)
    async with AsyncClient(url, made.keys["acme"].text) as client:
        await client.embed("a", "toy")
    for key, error in ((None, MissingKey), ("pv_none", InvalidKey)):
        async with AsyncClient(url, key) as client:
            with pytest.raises(error):
                await client.embed("a", "toy")
    await made.service.close()


@pytest.mark.parametrize("error", [Overloaded("full", 0.001), RuntimeError("broken")])
async def test_what_may_pass_is_asked_again_and_billed_once(wire: Wire, error: Exception) -> None:
    engine = Recovering(2, error)
    url = await wire(service(toy(), engine=engine))
    async with AsyncClient(url, retries=AT_ONCE) as client:
        assert (await client.embed("a", "toy")).vectors.shape == (1, 8)
    assert engine.calls == 3


async def test_in_the_end_the_error_is_told(wire: Wire) -> None:
    engine = HashEngine(8, Overloaded("full", 0.001))
    url = await wire(service(toy(), engine=engine))
    async with AsyncClient(url, retries=Retries(attempts=3, first_s=0.0)) as client:
        with pytest.raises(Overloaded, match="full"):
            await client.embed("a", "toy")
    assert engine.calls == 3


async def test_the_same_request_asked_again_is_billed_once(wire: Wire, tmp_path: Path) -> None:
    made = Bank(tmp_path, HashEngine(8), False)
    url = await wire(made.service)
    for _ in range(2):
        async with AsyncClient(url, made.keys["acme"].text, bounds=Bounds(inputs=1)) as client:
            found = client.embed_each(["a", "b"], "toy", run="mine")
            assert [count async for count, _ in found] == [1, 1]
    assert await made.settled() == {("acme", "toy", "", "text"): 2 * 3}
    await made.service.close()


@pytest.mark.parametrize(
    ("plan", "error"),
    [
        ({"requests_per_minute": 1}, RequestLimitExceeded),
        ({"monthly_tokens": 3}, MonthlyLimitExceeded),
    ],
)
async def test_a_quota_that_is_full_for_longer_is_told_at_once(
    wire: Wire, tmp_path: Path, plan: dict[str, object], error: type[PolyvecError]
) -> None:
    made = Bank(tmp_path, HashEngine(8), False, **plan)
    key = made.keys["acme"].text
    async with AsyncClient(await wire(made.service), key, retries=Retries(longest_s=1)) as client:
        await client.embed("a", "toy")
        with pytest.raises(error) as told:
            await client.embed("a", "toy")
    seconds = told.value.retry_after_s
    assert seconds is None if error is MonthlyLimitExceeded else 1 < (seconds or 0) <= 60
    await made.service.close()


async def test_a_deadline_is_kept(wire: Wire) -> None:
    url = await wire(service(toy(), engine=StuckEngine()))
    bounds = Bounds(timeout_s=0.2)
    async with AsyncClient(url, bounds=bounds, retries=Retries(attempts=1)) as client:
        with pytest.raises(DeadlinePassed):
            await client.embed("a", "toy")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_nobody_there_is_told_as_such(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:1"
    async with AsyncClient(url, retries=Retries(attempts=2, first_s=0.0)) as client:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
            await client.embed("a", "toy")


@pytest.mark.parametrize("url", ["", "host:8000", "ftp://host", "grpc://host", "http://host:x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfig, match="no server's address"):
        AsyncClient(url)


async def test_no_more_is_asked_at_once_than_is_allowed(wire: Wire) -> None:
    class Counting(HashEngine):
        most = now = 0

        async def embed(self, prepared: Prepared, deadline: float) -> Vectors:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.002)
            self.now -= 1
            return await super().embed(prepared, deadline)

    engine = Counting(8)
    bounds = Bounds(inputs=1, concurrency=3)
    async with AsyncClient(await wire(service(toy(), engine=engine)), bounds=bounds) as client:
        await client.embed([str(number) for number in range(30)], "toy")
    assert 1 < engine.most <= 3


async def test_a_run_that_is_left_asks_no_more(wire: Wire) -> None:
    read = []

    def texts() -> object:
        for number in range(100):
            read.append(number)
            yield str(number)

    bounds = Bounds(inputs=1, concurrency=2)
    async with AsyncClient(await wire(service(toy())), bounds=bounds) as client:
        found = client.embed_each(texts(), "toy")  # type: ignore[arg-type]
        await anext(found)
        await found.aclose()
    assert len(read) < 5


async def test_code_that_waits_gets_the_same(wire: Wire) -> None:
    served = service(toy())
    url = await wire(served)

    def wait() -> None:
        with Client(url, bounds=Bounds(inputs=2)) as client:
            found = client.embed(["a", "b", "c"], "toy", progress=True)
            assert found.vectors.shape == (3, 8)
            parts = list(client.embed_each(["a", "b", "c"], "toy"))
            assert [count for count, _ in parts] == [2, 1]
            together = np.concatenate([part.vectors for _, part in parts])
            np.testing.assert_array_equal(together, found.vectors)
            assert client.rerank("a", ["a"], "toy").order == (0,)
            assert [one.id for one in client.models()] == ["toy"]
            with pytest.raises(ModelNotFound):
                client.embed("a", "none")
        client.close()

    await asyncio.to_thread(wait)
