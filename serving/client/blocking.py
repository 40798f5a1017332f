"""The same client for code that waits: `AsyncClient` on an event loop in a thread of its own.

So it works wherever a loop runs already, as in a notebook, and nothing is written twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar, Unpack

from serving.client.asynchronous import AsyncClient, Wanted
from serving.client.results import Classified, Embedded, Model, Ranked
from serving.client.retrying import Retries
from serving.client.splitting import Bounds
from serving.values import Item

__all__ = ["Client"]

_T = TypeVar("_T")


class Client:
    """See `AsyncClient`, whose methods these are."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        bounds: Bounds | None = None,
        retries: Retries | None = None,
    ) -> None:
        self._client = AsyncClient(
            url, api_key, bounds=bounds or Bounds(), retries=retries or Retries()
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="polyvec", daemon=True)
        self._thread.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, and end the thread. A second call does nothing."""
        if self._loop.is_closed():
            return
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def embed(
        self,
        inputs: str | Item | Sequence[str | Item],
        model: str,
        *,
        progress: bool = False,
        **wanted: Unpack[Wanted],
    ) -> Embedded:
        """Vectors of all inputs, in order."""
        return self._wait(self._client.embed(inputs, model, progress=progress, **wanted))

    def embed_each(
        self,
        inputs: Iterable[str | Item],
        model: str,
        *,
        run: str | None = None,
        **wanted: Unpack[Wanted],
    ) -> Iterator[tuple[int, Embedded]]:
        """How many of the inputs are next, and their vectors: part by part, in order."""
        found = self._client.embed_each(inputs, model, run=run, **wanted)

        async def following() -> tuple[int, Embedded] | None:
            return await anext(found, None)

        try:
            while (part := self._wait(following())) is not None:
                yield part
        finally:
            self._wait(found.aclose())

    def rerank(
        self,
        query: str | Item,
        documents: Sequence[str | Item],
        model: str,
        top_n: int | None = None,
    ) -> Ranked:
        """The documents' places by their relevance to the query."""
        return self._wait(self._client.rerank(query, documents, model, top_n))

    def classify(
        self,
        inputs: Sequence[str | Item],
        labels: Sequence[str] | Mapping[str, Sequence[str]],
        model: str,
    ) -> Classified:
        """The likeliest of the labels for every input; of every group, where they are in groups."""
        return self._wait(self._client.classify(inputs, labels, model))

    def models(self) -> list[Model]:
        """Every model that is served."""
        return self._wait(self._client.models())

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C ends the work too, not the wait alone
            future.cancel()
            raise
