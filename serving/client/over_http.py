"""Questions over HTTP: messages to JSON bodies, and bodies back to messages.

Floats travel as base64, which is the bytes of the message's own packed vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx
import numpy as np
import orjson
import pybase64
from google.protobuf.message import Message

import serving.protos.embeddings_pb2 as pb
from serving.client.results import dtype_of
from serving.client.retrying import SLACK_S, error_of
from serving.errors import PolyvecError, Refused, Unavailable

__all__ = ["HttpTransport"]

# A body that is not ours has no shape that could be said; whatever is missing in it is a KeyError.
Body = dict[str, Any]


class HttpTransport:
    """`Transport` over the HTTP API at `url`, of so many connections at most."""

    def __init__(self, url: str, connections: int) -> None:
        self._url = url.rstrip("/")
        self._connections = connections
        self._client: httpx.AsyncClient | None = None

    async def ask(
        self, method: str, request: Message, headers: Mapping[str, str], timeout_s: float
    ) -> Message:
        """See `Transport`."""
        route = _ROUTES[method]
        if self._client is None:
            limits = httpx.Limits(max_connections=self._connections)
            self._client = httpx.AsyncClient(limits=limits, http2=False)
        try:
            answer = await self._client.request(
                route.verb,
                f"{self._url}{route.path}",
                content=orjson.dumps(route.write(request)) if route.write else None,
                headers={"content-type": "application/json", **headers},
                timeout=timeout_s + SLACK_S,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise Unavailable(f"{self._url} does not answer: {why}") from None
        if answer.status_code != 200:
            raise _error(answer, self._url)
        try:
            return route.read(orjson.loads(answer.content), request)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise Refused(f"{self._url}{route.path} answers, but not as Polyvec does") from None

    async def close(self) -> None:
        """See `Transport`."""
        if self._client is not None:
            await self._client.aclose()


def _error(answer: httpx.Response, url: str) -> PolyvecError:
    try:
        body: Body = orjson.loads(answer.content)
        message, code = str(body["detail"]), str(body["code"])
        field = body["error"]["param"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message, code, field = f"{url}: {answer.status_code} {answer.reason_phrase}", "", None
    return error_of(answer.status_code, code, message, field, _retry_after_s(answer.headers))


def _retry_after_s(headers: httpx.Headers) -> float | None:
    """As the server says; a date, which others than ours may send, is left to our own pauses."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        sent = headers.get(name, "")
        if sent.isdecimal() and len(sent) < 12:
            return int(sent) * unit_s
    return None


def _write_embed(request: Message) -> Body:
    asked = cast(pb.EmbedRequest, request)
    body: Body = {"model": asked.model, "input": [_write_input(one) for one in asked.inputs]}
    options = asked.options
    for field, value in options.ListFields():
        if field.name not in ("embedding_types", "float_values"):
            body[field.name] = value
    [kind] = options.embedding_types or ("float",)
    body["embedding_type"] = "base64" if kind == "float" else kind
    return body


def _write_input(one: pb.Input) -> object:
    match one.WhichOneof("content"):
        case "text":
            return {"text": one.text}
        case "image":
            return {"image": one.image.url}
        case "pdf":
            return {"pdf": one.pdf.url}
        case "token_ids":
            return list(one.token_ids.ids)
    return {
        "content": [
            {"text": part.text} if part.HasField("text") else {"image": part.image.url}
            for part in one.fused.parts
        ]
    }


def _read_embed(body: Body, request: Message) -> pb.EmbedResponse:
    [kind] = cast(pb.EmbedRequest, request).options.embedding_types or ("float",)
    answer = pb.EmbedResponse(model=body["model"], usage=_read_usage(body["usage"]))
    for row in sorted(body["data"], key=lambda row: int(row["index"])):
        entry = answer.data.add(index=row["index"])
        if "embedding" in row:
            entry.vectors.add(type=kind, packed=_packed(row["embedding"], kind))
        if "embeddings" in row:
            rows = [_packed(one, kind) for one in row["embeddings"]]
            entry.multi_vectors.add(type=kind, num_vectors=len(rows), packed=b"".join(rows))
        if "sparse_embedding" in row:
            sparse = row["sparse_embedding"]
            entry.sparse_vector.ids.extend(sparse["indices"])
            entry.sparse_vector.weights.extend(sparse["values"])
    return answer


def _packed(value: str | Sequence[float], kind: str) -> bytes:
    if isinstance(value, str):
        return pybase64.b64decode(value, validate=True)
    return np.array(value).astype(dtype_of(kind)).tobytes()


def _read_usage(usage: Body) -> pb.Usage:
    total, image = usage["total_tokens"], usage.get("image_tokens", 0)
    return pb.Usage(total_tokens=total, text_tokens=total - image, image_tokens=image)


def _write_rerank(request: Message) -> Body:
    asked = cast(pb.RerankRequest, request)
    body: Body = {
        "model": asked.model,
        "query": _write_input(asked.query),
        "documents": [_write_input(one) for one in asked.documents],
        "return_documents": False,
    }
    return body | ({"top_n": asked.top_n} if asked.top_n else {})


def _read_rerank(body: Body, request: Message) -> pb.RerankResponse:
    answer = pb.RerankResponse(model=body["model"], usage=_read_usage(body["usage"]))
    for row in body["results"]:
        answer.results.add(index=row["index"], relevance_score=row["relevance_score"])
    return answer


def _write_classify(request: Message) -> Body:
    asked = cast(pb.ClassifyRequest, request)
    return {
        "model": asked.model,
        "input": [_write_input(one) for one in asked.inputs],
        "labels": {group.name: list(group.labels) for group in asked.groups} or list(asked.labels),
    }


def _read_classify(body: Body, request: Message) -> pb.ClassifyResponse:
    model = cast(pb.ClassifyRequest, request).model
    answer = pb.ClassifyResponse(model=model, usage=_read_usage(body["usage"]))
    for row in body["data"]:
        one = answer.data.add(index=row["index"])
        chosen = row["prediction"]
        if isinstance(chosen, str):
            _read_chosen(one, chosen, row["score"], row["predictions"])
            continue
        for name in chosen:
            found = (row[key][name] for key in ("prediction", "score", "predictions"))
            _read_chosen(one.groups.add(name=name), *found)
    return answer


def _read_chosen(
    one: pb.Classification | pb.GroupClassification,
    prediction: str,
    score: float,
    predictions: Sequence[Body],
) -> None:
    one.prediction, one.score = prediction, score
    for said in predictions:
        one.predictions.add(label=said["label"], score=said["score"])


def _read_models(body: Body, request: Message) -> pb.ListModelsResponse:
    answer = pb.ListModelsResponse()
    for row in body["data"]:
        answer.models.add(
            id=row["id"],
            aliases=row["aliases"],
            max_input_tokens=row["max_model_len"],
            matryoshka_dimensions=row["matryoshka_dimensions"],
            tasks=row["tasks"],
            input_modalities=row["input_modalities"],
        )
    return answer


@dataclass(frozen=True, slots=True)
class _Route:
    verb: str
    path: str
    write: Callable[[Message], Body] | None
    read: Callable[[Body, Message], Message]


_ROUTES: Mapping[str, _Route] = {
    "Embed": _Route("POST", "/v1/embeddings", _write_embed, _read_embed),
    "Rerank": _Route("POST", "/v1/rerank", _write_rerank, _read_rerank),
    "Classify": _Route("POST", "/v1/classify", _write_classify, _read_classify),
    "ListModels": _Route("GET", "/v1/models", None, _read_models),
}
