"""Users for locust: each asks one kind of question, over one wire, with one tenant's key.

A 429 or 503 is right behaviour and counted as a refusal; the user waits as long as it was told.
"""

# mypy: disallow-subclassing-any=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
# Locust is annotated in part, and in the extra `load` only.

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import Any, Literal

import grpc
import grpc.experimental.gevent
import httpx
from locust import FastHttpUser, User, between, task
from locust.env import Environment

import serving.protos.embeddings_pb2 as pb
from loadtests.collecting import TALLY
from loadtests.mixes import Facts, Kind, Question, questions
from loadtests.tally import Result
from serving.client.asking import write_input
from serving.protos.embeddings_pb2_grpc import EmbeddingsServiceStub
from serving.values import Image, Text

__all__ = ["grpc_user", "http_user"]

logging.getLogger("httpx").setLevel(logging.WARNING)

_SEEDS = count(1)  # every user has texts of its own
_WAITS: dict[str, tuple[float, float]] = {"interactive": (0.05, 0.5), "bulk": (0.0, 0.05)}
_LONGEST_WAIT_S = 5.0
_TIMEOUT_S = 90.0
_REFUSALS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


@cache
def _facts(host: str, model: str, key: str) -> Facts:
    """Of the model, asked for once in a process."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = httpx.get(f"{host}/v1/models/{model}", headers=headers, timeout=30)
    answer.raise_for_status()
    return Facts.of(answer.json())


class _Asker:
    """What users of both wires have in common. A user whose kind the model lacks asks queries."""

    kind: Kind
    environment: Environment
    host: str | None

    def on_start(self) -> None:
        options = self.environment.parsed_options
        assert options is not None
        seed = next(_SEEDS)
        keys = options.keys.split(",")
        self.key: str = keys[seed % len(keys)]
        self.model: str = options.model
        facts = _facts(self.host or "", self.model, self.key)
        only = "query" if self.kind.images and not facts.images else self.kind.name
        self.supply: Iterator[Question] = questions(facts, seed, only=only)
        self.headers = {"authorization": f"Bearer {self.key}"} if self.key else {}

    def told(
        self, question: Question, wire: str, result: Result, seconds: float, tokens: int = 0
    ) -> None:
        """Count what came of it."""
        name = question.kind if wire == "http" else f"{wire} {question.kind}"
        TALLY.note(int(time.time()), name, result, seconds, tokens)


class _HttpUser(_Asker, FastHttpUser):
    abstract = True
    network_timeout = _TIMEOUT_S

    @task
    def ask(self) -> None:
        """One question."""
        question = next(self.supply)
        headers = self.headers | {"x-service-class": question.service_class}
        began, wait_s = time.perf_counter(), 0.0
        with self.client.post(
            "/v1/embeddings",
            json=question.body(self.model),
            headers=headers,
            name=question.kind,
            catch_response=True,
        ) as answer:
            took = time.perf_counter() - began
            if answer.status_code == 200 and len(answer.json()["data"]) == len(question.inputs):
                tokens = answer.json()["usage"]["total_tokens"]
                self.told(question, "http", "answered", took, tokens)
            elif answer.status_code in (429, 503) and "retry-after" in answer.headers:
                answer.request_meta["name"] = f"{question.kind}, refused"
                answer.success()
                self.told(question, "http", "refused", took)
                wait_s = float(answer.headers["retry-after"])
            else:
                answer.failure(f"HTTP {answer.status_code}: {str(answer.text)[:120]}")
                self.told(question, "http", "failed", took)
        time.sleep(min(wait_s, _LONGEST_WAIT_S))


class _GrpcUser(_Asker, User):
    abstract = True

    def on_start(self) -> None:
        super().on_start()
        assert self.environment.parsed_options is not None
        self._stub = _stub(self.environment.parsed_options.grpc)
        self._metadata = tuple(self.headers.items())

    @task
    def ask(self) -> None:
        """One question."""
        question = next(self.supply)
        options = pb.EmbedOptions(task=question.task) if question.task else None
        make = Image if question.images else Text
        request = pb.EmbedRequest(
            model=self.model,
            inputs=[write_input(make(one)) for one in question.inputs],
            options=options,
        )
        metadata = (*self._metadata, ("x-service-class", question.service_class))
        began, name, failure = time.perf_counter(), question.kind, None
        size, wait_s, tokens = 0, 0.0, 0
        result: Result = "answered"
        try:
            answer = self._stub.Embed(request, timeout=_TIMEOUT_S, metadata=metadata)
            size, tokens = answer.ByteSize(), answer.usage.total_tokens
        except grpc.RpcError as error:
            wait_s = _told_to_wait_s(error)
            result = "refused" if wait_s else "failed"
            name, failure = (f"{name}, refused", None) if wait_s else (name, error)
        took = time.perf_counter() - began
        self.told(question, "grpc", result, took, tokens)
        self.environment.events.request.fire(
            request_type="gRPC",
            name=name,
            response_time=1000 * took,
            response_length=size,
            exception=failure,
            context={},
        )
        time.sleep(min(wait_s, _LONGEST_WAIT_S))


def http_user(kind: Kind) -> type[User]:
    """A class of users of that kind, over HTTP."""
    return _user(kind, _HttpUser, "http")


def grpc_user(kind: Kind) -> type[User]:
    """A class of users of that kind, over gRPC."""
    return _user(kind, _GrpcUser, "grpc")


def _user(kind: Kind, base: type[User], wire: Literal["http", "grpc"]) -> type[User]:
    made: dict[str, Any] = {
        "kind": kind,
        "wire": wire,
        "weight": round(kind.share),
        "wait_time": between(*_WAITS[kind.service_class]),
        "__doc__": f"Asks questions of the kind {kind.name} over {wire}.",
    }
    return type(f"{wire.title()}{kind.name.title()}", (base,), made)


@cache
def _stub(target: str) -> EmbeddingsServiceStub:
    grpc.experimental.gevent.init_gevent()
    return EmbeddingsServiceStub(grpc.insecure_channel(target))


def _told_to_wait_s(error: grpc.RpcError) -> float:
    """Seconds, where the server refuses and says when to come back; else 0."""
    if error.code() not in _REFUSALS:
        return 0.0
    told = dict(error.trailing_metadata() or ()).get("retry-after-ms", "0")
    return int(told) / 1000 if str(told).isdigit() else 0.0
