"""Simulated users: people who search, and programs that index. `make load`, or locust's own page.

Locust spends far more on a request than `bench.py`: use it for behaviour under a mixture of users,
and `bench.py` for what the server costs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count, islice

from locust import FastHttpUser, between, task

from loadtests.texts import texts

__all__ = ["Indexer", "Searcher"]

_MODEL = os.environ.get("POLYVEC_MODEL", "all-MiniLM-L6-v2")
_SEEDS = count(1)  # every user has texts of its own


class _User(FastHttpUser):
    abstract = True

    def on_start(self) -> None:
        seed = next(_SEEDS)
        self._queries: Iterator[str] = texts(12, seed)
        self._passages: Iterator[str] = texts(100, seed)

    def _embed(self, what: str, inputs: list[str]) -> None:
        body = {"model": _MODEL, "input": inputs, "encoding_format": "base64"}
        with self.client.post(
            "/v1/embeddings", json=body, name=what, catch_response=True
        ) as answer:
            if answer.status_code in (429, 503):
                answer.success()  # a refusal that says when to come back is right behaviour
            elif answer.status_code != 200 or len(answer.json()["data"]) != len(inputs):
                answer.failure(f"HTTP {answer.status_code}")


class Searcher(_User):
    """A person: one short query, then a moment to read."""

    weight = 8
    wait_time = between(0.05, 0.5)

    @task
    def search(self) -> None:
        """Embed one query."""
        self._embed("a query", [next(self._queries)])


class Indexer(_User):
    """A program: batches of passages, one after another."""

    weight = 1
    wait_time = between(0.0, 0.05)

    @task
    def index(self) -> None:
        """Embed thirty-two passages."""
        self._embed("32 passages", list(islice(self._passages, 32)))
