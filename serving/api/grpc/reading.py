"""Messages to what the service is asked; everything wrong with one is told at once."""

from __future__ import annotations

from collections.abc import Sequence

from pybase64 import b64encode

import serving.protos.embeddings_pb2 as pb
from serving.api.fields import Fields
from serving.encodings import ENCODINGS
from serving.models.spec import ModelSpec
from serving.values import Ask, Fused, Image, Item, Output, Pdf, Text, TokenIds

__all__ = ["read_ask", "read_item", "read_items", "read_types"]

_TYPES = ENCODINGS.names()

_FLOAT = ("float",)
_TOKEN_IDS = "must be text, not token ids, which mean nothing to another tokenizer"


def read_ask(
    spec: ModelSpec,
    request: pb.EmbedRequest | pb.CountTokensRequest,
    most: int,
    token_ids: bool,
) -> Ask:
    """What to ask of that model, of at most `most` inputs. Raises `InvalidInput`.

    `token_ids` says whether inputs may be such.
    """
    wanted = request.options
    items = read_items(request.inputs, "inputs", most, token_ids)
    return Ask(
        spec.id,
        items,
        wanted.task or None,
        wanted.input_type or None,
        _output(wanted),
        wanted.truncate,
        wanted.late_chunking,
        wanted.max_pixels if wanted.HasField("max_pixels") else None,
        field="inputs",
    )


def read_types(wanted: pb.EmbedOptions) -> tuple[str, ...]:
    """The number types of the answer. Raises `InvalidInput`, which names the choices."""
    noted = Fields({}, {})
    for index, name in enumerate(wanted.embedding_types):
        if name not in _TYPES:
            field = f"options.embedding_types.{index}"
            noted.problem(field, f"must be one of {', '.join(_TYPES)}", "enum", name)
    noted.check()
    return tuple(dict.fromkeys(wanted.embedding_types)) or _FLOAT


def read_items(
    inputs: Sequence[pb.Input], name: str, most: int, token_ids: bool = False
) -> tuple[Item, ...]:
    """The items of the field `name`, in order. Raises `InvalidInput` with every problem found."""
    noted = Fields({}, {})
    if not inputs:
        noted.problem(name, "is empty; give at least one", "too_short")
    if len(inputs) > most:
        noted.problem(name, f"has {len(inputs)} items; at most {most} fit one request", "too_long")
        inputs = ()
    items: list[Item] = []
    for index, one in enumerate(inputs):
        item = _item(noted, f"{name}.{index}", one, token_ids)
        if item is not None:
            items.append(item)
        elif noted.hopeless:
            break
    noted.check()
    return tuple(items)


def read_item(one: pb.Input, name: str) -> Item | None:
    """The item of the field `name`. Raises `InvalidInput`."""
    noted = Fields({}, {})
    item = _item(noted, name, one, False)
    noted.check()
    return item


def _output(wanted: pb.EmbedOptions) -> Output:
    multi = wanted.return_multivector
    return Output(
        wanted.dimensions if wanted.HasField("dimensions") else None,
        wanted.normalized if wanted.HasField("normalized") else True,
        wanted.return_dense if wanted.HasField("return_dense") else not multi,
        multi,
        wanted.return_sparse,
        wanted.return_tokenized_input,
    )


def _item(noted: Fields, name: str, one: pb.Input, token_ids: bool) -> Item | None:
    match one.WhichOneof("content"):
        case "text":
            return Text(one.text)
        case "image":
            source = _source(noted, f"{name}.image", one.image)
            return None if source is None else Image(source)
        case "pdf":
            source = _source(noted, f"{name}.pdf", one.pdf)
            return None if source is None else Pdf(source)
        case "fused":
            return _fused(noted, f"{name}.fused", one.fused)
        case "token_ids":
            if token_ids and one.token_ids.ids:
                return TokenIds(tuple(one.token_ids.ids))
            why = "must have at least one" if token_ids else _TOKEN_IDS
            noted.problem(f"{name}.token_ids", why, "token_ids")
        case _:
            noted.problem(name, "must have text, image, pdf or fused", "missing")
    return None


def _source(noted: Fields, name: str, given: pb.Image | pb.Pdf) -> str | None:
    """What the media room reads: base64, or the address as it is."""
    match given.WhichOneof("source"):
        case "data":
            return b64encode(given.data).decode()
        case "url":
            return given.url
    noted.problem(name, "must have data or url", "missing")
    return None


def _fused(noted: Fields, name: str, given: pb.Fused) -> Item | None:
    """As `content` over HTTP: one part is that part, texts alone are joined by line breaks."""
    parts: list[Text | Image] = []
    for index, part in enumerate(given.parts):
        match part.WhichOneof("part"):
            case "text":
                parts.append(Text(part.text))
            case "image":
                source = _source(noted, f"{name}.parts.{index}.image", part.image)
                parts.append(Image(source or ""))
            case _:
                noted.problem(f"{name}.parts.{index}", "must have text or image", "missing")
    if not given.parts:
        noted.problem(f"{name}.parts", "must be a list of parts", "missing")
    if len(parts) == 1:
        return parts[0]
    texts = [part.text for part in parts if isinstance(part, Text)]
    return Text("\n".join(texts)) if len(texts) == len(parts) else Fused(tuple(parts))
