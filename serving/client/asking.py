"""What a caller wants, as the messages that ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import serving.protos.embeddings_pb2 as pb
from serving.client.results import dtype_of
from serving.errors import InvalidInput
from serving.values import Fused, Image, Item, Pdf, ServiceClass, Text, TokenIds

__all__ = [
    "Wanted",
    "classify_request",
    "embed_request",
    "item_of",
    "rerank_request",
    "write_input",
]


class Wanted(TypedDict, total=False):
    """What may be said of vectors. `encoding` is float, int8, uint8, binary or ubinary.

    `role` is a hint where no `task` is given: query, document, … With `multi`, a vector for every
    token comes instead of one for the input; `sparse` adds weights of token ids. The inputs of
    `late_chunking` are chunks of one document, and are asked for in one request.
    """

    task: str
    role: str
    dimensions: int
    normalized: bool
    truncate: bool
    late_chunking: bool
    multi: bool
    sparse: bool
    max_pixels: int
    encoding: str
    service_class: ServiceClass


_NAMES = {"role": "input_type", "multi": "return_multivector", "sparse": "return_sparse"}
_NOT_OPTIONS = ("encoding", "service_class")


def item_of(given: str | Item) -> Item:
    """A string is a text."""
    return Text(given) if isinstance(given, str) else given


def embed_request(items: Sequence[Item], model: str, wanted: Wanted) -> pb.EmbedRequest:
    """Raises `InvalidInput` for a number type that there is not."""
    encoding = wanted.get("encoding", "float")
    dtype_of(encoding)
    said = {
        _NAMES.get(name, name): value for name, value in wanted.items() if name not in _NOT_OPTIONS
    }
    options = pb.EmbedOptions(embedding_types=[encoding], **said)  # type: ignore[arg-type]
    return pb.EmbedRequest(model=model, inputs=map(write_input, items), options=options)


def rerank_request(
    query: str | Item, documents: Sequence[str | Item], model: str, top_n: int | None
) -> pb.RerankRequest:
    """The most relevant `top_n`, or all."""
    return pb.RerankRequest(
        model=model,
        query=write_input(item_of(query)),
        documents=[write_input(item_of(one)) for one in documents],
        top_n=top_n,
    )


def classify_request(
    inputs: Sequence[str | Item], labels: Sequence[str] | Mapping[str, Sequence[str]], model: str
) -> pb.ClassifyRequest:
    """By labels, or by groups of them."""
    request = pb.ClassifyRequest(model=model, inputs=[write_input(item_of(one)) for one in inputs])
    if isinstance(labels, Mapping):
        for name, group in labels.items():
            request.groups.add(name=name, labels=group)
    else:
        request.labels.extend(labels)
    return request


def write_input(item: Item) -> pb.Input:
    """One input. Sources of images travel as they are: the server tells base64 from addresses."""
    match item:
        case Text(text):
            return pb.Input(text=text)
        case Image(source):
            return pb.Input(image=pb.Image(url=source))
        case Pdf(source):
            return pb.Input(pdf=pb.Pdf(url=source))
        case TokenIds(ids):
            return pb.Input(token_ids=pb.TokenIds(ids=ids))
        case Fused(parts):
            return pb.Input(fused=pb.Fused(parts=[_part(part) for part in parts]))
    raise InvalidInput("an input is a text, an image, a PDF, token ids or several fused", "inputs")


def _part(part: Text | Image) -> pb.Part:
    if isinstance(part, Text):
        return pb.Part(text=part.text)
    return pb.Part(image=pb.Image(url=part.source))
