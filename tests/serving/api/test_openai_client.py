"""OpenAI's own client, unchanged, in its sync and async forms."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import numpy as np
import openai
import pytest

from serving.accounts import Accounts
from serving.api.app import ApiSettings, create_app
from serving.errors import Overloaded
from serving.limits.limit import Limits
from serving.limits.limiter import Limiter
from serving.limits.stores.memory import MemoryStore
from serving.tenants import LOCAL
from tests.services import MODEL, HashEngine, client, listening, minilm, service, tasked, toy


@pytest.fixture
async def ai(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="any", base_url="http://polyvec/v1", http_client=http)


async def test_its_base64_default_is_decoded_to_the_floats(ai: openai.AsyncOpenAI) -> None:
    default = await ai.embeddings.create(model=MODEL, input=["hello", ""])
    floats = await ai.embeddings.create(model=MODEL, input=["hello", ""], encoding_format="float")
    assert [one.index for one in default.data] == [0, 1]
    for left, right in zip(default.data, floats.data, strict=True):
        assert len(left.embedding) == 384
        assert left.embedding == pytest.approx(right.embedding, abs=1e-7)
    assert default.usage.prompt_tokens == default.usage.total_tokens == 5
    assert default.model == MODEL


async def test_an_explicit_type_in_its_extra_body_wins(ai: openai.AsyncOpenAI) -> None:
    answer = await ai.embeddings.create(
        model="toy", input="a", extra_body={"embedding_type": "ubinary", "task": None}
    )
    assert len(answer.data[0].embedding) == 1


async def test_its_dimensions_are_honoured_or_refused_by_name(ai: openai.AsyncOpenAI) -> None:
    short = await ai.embeddings.create(model="tasked", input="a", dimensions=4)
    assert len(short.data[0].embedding) == 4
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await ai.embeddings.create(model=MODEL, input="a", dimensions=100)
    assert refused.value.param == "dimensions"
    assert refused.value.code == "INPUT_INVALID"
    assert "384" in refused.value.message
    assert refused.value.request_id is not None


async def test_it_carries_what_openai_has_no_field_for(ai: openai.AsyncOpenAI) -> None:
    image: list[object] = [{"image": "data:image/png;base64,AAAA"}]
    both = {"return_multivector": True, "return_dense": True}
    answer = await ai.embeddings.create(
        model="able",
        input=image,  # type: ignore[arg-type]
        encoding_format="float",
        extra_body=both,
    )
    assert len(answer.data[0].embedding) == 8
    assert np.shape(answer.data[0].embeddings) == (5, 3)  # type: ignore[attr-defined]
    assert answer.usage.image_tokens == 3  # type: ignore[attr-defined]


async def test_its_errors_are_of_its_own_classes(ai: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await ai.embeddings.create(model="gpt-9", input="a")
    assert (missing.value.code, missing.value.param) == ("INPUT_MODEL_NOT_FOUND", "model")
    with pytest.raises(openai.BadRequestError):
        await ai.embeddings.create(model=MODEL, input="dog " * 300)
    with pytest.raises(openai.UnprocessableEntityError, match="token ids"):
        await ai.embeddings.create(model=MODEL, input=[1, 2, 3])


async def test_it_lists_and_gets_models(ai: openai.AsyncOpenAI) -> None:
    assert [one.id async for one in ai.models.list()] == [MODEL, "tasked", "toy", "able"]
    assert (await ai.models.retrieve("org/toy")).id == "toy"


async def test_it_comes_back_when_told_to() -> None:
    class Busy(HashEngine):
        async def embed(self, prepared, deadline):  # type: ignore[no-untyped-def]
            self.error = Overloaded("full", 0.01) if self.calls < 2 else None
            return await super().embed(prepared, deadline)

    engine = Busy(8)
    async with client(service(toy(), engine=engine)) as http:
        ai = openai.AsyncOpenAI(api_key="any", base_url="http://polyvec/v1", http_client=http)
        answer = await ai.embeddings.create(model="toy", input="a")
    assert len(answer.data) == 1
    assert engine.calls == 3


async def test_its_sync_form_over_a_socket() -> None:
    app = create_app(service(minilm()[0], tasked()), ApiSettings())

    def ask(port: int) -> list[float]:
        with openai.OpenAI(api_key="any", base_url=f"http://127.0.0.1:{port}/v1") as ai:
            return ai.embeddings.create(model=MODEL, input="hello").data[0].embedding

    async with listening(app) as port:
        assert len(await asyncio.to_thread(ask, port)) == 384


async def test_its_default_retries_ride_through_a_short_limit() -> None:
    # Thirty at once, then one every two seconds: the last waits for what its first answer said.
    tenant = replace(LOCAL, limits=Limits(requests_per_minute=30))
    accounts = Accounts(limiter=Limiter(MemoryStore()))
    accounts.identify = lambda authorization, api_key=None: tenant  # type: ignore[method-assign]
    app = create_app(service(toy(), accounts=accounts), ApiSettings())
    statuses: list[int] = []

    async def remember(response: httpx.Response) -> None:
        statuses.append(response.status_code)

    async with (
        listening(app) as port,
        httpx.AsyncClient(event_hooks={"response": [remember]}) as http,
    ):
        url = f"http://127.0.0.1:{port}/v1"
        ai = openai.AsyncOpenAI(api_key="any", base_url=url, http_client=http)
        asked = (ai.embeddings.create(model="toy", input="a") for _ in range(31))
        await asyncio.gather(*asked)
    assert statuses.count(200) == 31
    assert statuses.count(429) >= 1
