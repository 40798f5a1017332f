"""The client for asyncio: splits, asks several at once, in order, and again where it may help."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, nullcontext
from types import TracebackType
from typing import TypeVar, Unpack, cast

from google.protobuf.message import Message

import serving.protos.embeddings_pb2 as pb
from serving.client.asking import (
    Wanted,
    classify_request,
    embed_request,
    item_of,
    rerank_request,
)
from serving.client.results import (
    Classified,
    Embedded,
    Model,
    Ranked,
    joined,
    read_classified,
    read_embedded,
    read_model,
    read_ranked,
)
from serving.client.retrying import Retries
from serving.client.showing import progress_of
from serving.client.splitting import Bounds, split
from serving.client.transport import Transport, open_transport
from serving.errors import InvalidInput, PolyvecError
from serving.values import Item

__all__ = ["AsyncClient", "Wanted"]

_A = TypeVar("_A", bound=Message)
_DEFAULT_BOUNDS, _DEFAULT_RETRIES = Bounds(), Retries()


class AsyncClient:
    """A client of the server at `url`: http://host:8000, https://…, grpc://host:9000 or grpcs://….

    Errors are those of `serving.errors`: what the server told, or `Unavailable` where it does not
    answer, after the last attempt.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        bounds: Bounds = _DEFAULT_BOUNDS,
        retries: Retries = _DEFAULT_RETRIES,
        chance: Callable[[], float] = random.random,
        identity: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._transport: Transport = open_transport(url, bounds.concurrency)
        self._api_key, self._bounds, self._retries = api_key, bounds, retries
        self._chance, self._identity = chance, identity

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        await self._transport.close()

    async def embed(
        self,
        inputs: str | Item | Sequence[str | Item],
        model: str,
        *,
        progress: bool = False,
        **wanted: Unpack[Wanted],
    ) -> Embedded:
        """Vectors of all inputs, in order. With `progress`, a bar on stderr shows how far it is."""
        given = [inputs] if isinstance(inputs, str) or not isinstance(inputs, Sequence) else inputs
        if not given:
            raise InvalidInput("inputs is empty; give at least one", "inputs")
        parts = []
        with progress_of(len(given)) if progress else nullcontext(lambda count: None) as advance:
            async with aclosing(self.embed_each(given, model, **wanted)) as found:
                async for count, part in found:
                    parts.append(part)
                    advance(count)
        return joined(parts)

    async def embed_each(
        self,
        inputs: Iterable[str | Item],
        model: str,
        *,
        run: str | None = None,
        first: int = 0,
        **wanted: Unpack[Wanted],
    ) -> AsyncGenerator[tuple[int, Embedded], None]:
        """How many of the inputs are next, and their vectors: part by part, in order.

        `inputs` is read as far as parts are under way. A list that is asked for again under the
        same name `run`, or the rest of it from the place `first` on, is billed once.
        """
        encoding = wanted.get("encoding", "float")
        items = map(item_of, inputs)
        parts: Iterator[list[Item]] = split(items, self._bounds)
        if wanted.get("late_chunking"):
            parts = iter([list(items)])
        waiting = deque[tuple[int, asyncio.Task[pb.EmbedResponse]]]()
        try:
            for part in parts:
                key = self._identity() if run is None else f"{run}-{first}-{len(part)}"
                first += len(part)
                request = embed_request(part, model, wanted)
                asking = self._ask("Embed", request, pb.EmbedResponse, key, wanted)
                waiting.append((len(part), asyncio.ensure_future(asking)))
                if len(waiting) >= self._bounds.concurrency:
                    count, task = waiting.popleft()
                    yield count, read_embedded(await task, encoding)
            while waiting:
                count, task = waiting.popleft()
                yield count, read_embedded(await task, encoding)
        finally:
            left = [task for _, task in waiting]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def rerank(
        self,
        query: str | Item,
        documents: Sequence[str | Item],
        model: str,
        top_n: int | None = None,
    ) -> Ranked:
        """The documents' places by their relevance to the query."""
        request = rerank_request(query, documents, model, top_n)
        return read_ranked(await self._ask("Rerank", request, pb.RerankResponse))

    async def classify(
        self,
        inputs: Sequence[str | Item],
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        model: str,
    ) -> Classified:
        """The likeliest of the labels for every input; of every group, where they are in groups."""
        request = classify_request(inputs, labels, model)
        return read_classified(await self._ask("Classify", request, pb.ClassifyResponse))

    async def models(self) -> list[Model]:
        """Every model that is served."""
        answer = await self._ask("ListModels", pb.ListModelsRequest(), pb.ListModelsResponse)
        return [read_model(one) for one in answer.models]

    async def _ask(
        self,
        method: str,
        request: Message,
        kind: type[_A],
        key: str | None = None,
        wanted: Wanted | None = None,
    ) -> _A:
        headers = self._headers(key or self._identity(), wanted or {})
        attempt = 1
        while True:
            try:
                answer = await self._transport.ask(method, request, headers, self._bounds.timeout_s)
                return cast(_A, answer)
            except PolyvecError as error:
                pause_s = self._retries.pause_s(error, attempt, self._chance())
                if pause_s is None:
                    raise
            attempt += 1
            await asyncio.sleep(pause_s)

    def _headers(self, key: str, wanted: Wanted) -> dict[str, str]:
        headers = {
            "idempotency-key": key,
            "x-request-timeout-ms": str(round(self._bounds.timeout_s * 1000)),
        }
        if self._api_key is not None:
            headers["authorization"] = f"Bearer {self._api_key}"
        if "service_class" in wanted:
            headers["x-service-class"] = wanted["service_class"]
        return headers
