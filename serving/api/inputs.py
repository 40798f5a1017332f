"""What a caller may give to embed, in every spelling that clients use, to the items of an `Ask`."""

from __future__ import annotations

from serving.api.fields import Fields
from serving.values import Fused, Image, Item, Pdf, Text, TokenIds

__all__ = ["read_inputs"]

# {"image"} Jina, {"url"} and {"bytes"} langchain and llama-index, the rest content parts of OpenAI,
# vLLM and Voyage (api.md 0.3 and 3).
_IMAGES = ("image", "url", "bytes", "image_url", "image_base64")
_FOREIGN = {
    "audio": "audio",
    "video": "video",
    "video_url": "video",
    "video_base64": "video",
}
_KEYS = ("text", "content", *_IMAGES, "pdf", *_FOREIGN)
_KINDS = 'must be a string, {"text"}, {"image"} or {"pdf"}'
_DATA_IMAGE, _DATA_PDF = "data:image/", "data:application/pdf"
_TOKEN_IDS = (
    "must be text, not token ids, which mean nothing to another tokenizer "
    "(langchain: check_embedding_ctx_length=False)"
)
_LARGEST_ID = 2**31


def read_inputs(
    fields: Fields, name: str, value: object, most: int, token_ids: bool = False
) -> tuple[Item, ...]:
    """The items of `value`, at most `most`; what is wrong is noted in `fields`.

    Where `token_ids` are taken, a list of integers is one input, and a list of such lists several.
    """
    if type(value) is str:
        return (_plain(value),)
    if type(value) is not list:
        return _one(fields, name, value)
    if not value:
        fields.problem(name, "is empty; give at least one text", "too_short", value)
    if token_ids and value and type(value[0]) is int:
        return _ids(fields, name, value)
    if len(value) > most:
        message = f"has {len(value)} items; at most {most} fit one request"
        fields.problem(name, message, "too_long", value)
        return ()
    items: list[Item] = []
    for index, one in enumerate(value):
        if type(one) is str:
            items.append(_plain(one))
            continue
        if token_ids and type(one) is list:
            items.extend(_ids(fields, f"{name}.{index}", one))
            continue
        items.extend(_one(fields, f"{name}.{index}", one))
        if fields.hopeless or _is_token_ids(one):
            break
    return tuple(items)


def _plain(text: str) -> Item:
    # haystack sends images as bare data URIs. Bare base64 could be a text, and is one.
    if not text.startswith("data:"):
        return Text(text)
    if text.startswith(_DATA_IMAGE):
        return Image(text)
    return Pdf(text) if text.startswith(_DATA_PDF) else Text(text)


def _is_token_ids(value: object) -> bool:
    if type(value) is list:
        return bool(value) and type(value[0]) is int
    return type(value) is int


def _ids(fields: Fields, name: str, value: list[object]) -> tuple[TokenIds, ...]:
    ids = tuple(one for one in value if type(one) is int and 0 <= one < _LARGEST_ID)
    if not ids or len(ids) < len(value):
        fields.problem(name, "must be token ids: integers, at least one", "token_ids", value)
        return ()
    return (TokenIds(ids),)


def _one(fields: Fields, name: str, value: object) -> tuple[Item, ...]:
    if type(value) is str:
        return (_plain(value),)
    if type(value) is dict:
        return _from_object(fields, name, value)
    if value is None:
        fields.problem(name, "is missing", "missing")
    elif _is_token_ids(value):
        fields.problem(name, _TOKEN_IDS, "token_ids", value)
    else:
        fields.problem(
            name, 'must be a string, {"text"}, {"image"} or {"pdf"}', "input_type", value
        )
    return ()


def _from_object(fields: Fields, name: str, value: dict[str, object]) -> tuple[Item, ...]:
    given = [key for key in _KEYS if value.get(key) is not None]
    if len(given) != 1:
        some = "text, image, url, bytes, pdf or content"
        wanted = f"only one of {', '.join(given)}" if given else some
        fields.problem(name, f"must have {wanted}", "input_object", value)
        return ()
    key = given[0]
    field, inner = f"{name}.{key}", value[key]
    if key == "content":
        return _content(fields, field, inner)
    if key in _FOREIGN:
        fields.refuse(field, f"embeds no {_FOREIGN[key]}")
        return ()
    if key == "image_url" and type(inner) is dict:
        field, inner = f"{field}.url", inner.get("url")
    if type(inner) is not str:
        fields.problem(field, "must be a string", "string_type", inner)
        return ()
    if key == "text":
        return (Text(inner),)
    return (Pdf(inner) if key == "pdf" else Image(inner),)


def _content(fields: Fields, name: str, parts: object) -> tuple[Item, ...]:
    """One item of several parts; texts alone are joined by line breaks, as chat templates do."""
    if type(parts) is str:
        return (Text(parts),)
    if type(parts) is not list or not parts:
        fields.problem(name, "must be a list of parts", "list_type", parts)
        return ()
    items: list[Text | Image] = []
    for index, part in enumerate(parts):
        items.extend(_part(fields, f"{name}.{index}", part))
        if fields.hopeless:
            break
    if len(items) == 1:
        return (items[0],)
    texts = [item.text for item in items if isinstance(item, Text)]
    return (Text("\n".join(texts)),) if len(texts) == len(items) else (Fused(tuple(items)),)


def _part(fields: Fields, name: str, part: object) -> list[Text | Image]:
    if type(part) is dict and "content" in part:
        fields.problem(name, "must not have content of its own", "nested", part)
        return []
    items: list[Text | Image] = []
    for item in _one(fields, name, part):
        if isinstance(item, Text | Image):
            items.append(item)
        else:
            fields.problem(name, "is a PDF, which must be an input of its own", "nested")
    return items
