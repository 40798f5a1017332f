"""A long list of inputs into requests that a server takes. Pure: the same list splits the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from serving.values import Image, Item, Pdf, Text, TokenIds, parts_of

__all__ = ["Bounds", "split"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may hold, and how many are under way at once.

    `timeout_s` is what one of them may take.
    """

    inputs: int = 256
    bytes: int = 4 * 2**20
    concurrency: int = 4
    timeout_s: float = 60.0


def split(items: Iterable[Item], bounds: Bounds) -> Iterator[list[Item]]:
    """The items in order, in lists within the bounds; one that is too large has its own.

    A document has its own too: servers take nothing beside it.
    """
    batch: list[Item] = []
    size = 0
    for item in items:
        bytes_ = _size(item)
        alone = isinstance(item, Pdf)
        if batch and (alone or len(batch) == bounds.inputs or size + bytes_ > bounds.bytes):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += bytes_
        if alone:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(item: Item) -> int:
    size = 0
    for part in parts_of(item):
        match part:
            case Text(text):
                size += len(text.encode("utf-8", "surrogatepass"))
            case TokenIds(ids):
                size += 8 * len(ids)
            case Image(source) | Pdf(source):
                size += len(source)
    return size
