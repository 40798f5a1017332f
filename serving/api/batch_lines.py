"""A line of a batch in the words of `POST /v1/embeddings`: read, and its answer written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from serving.api.dialects.jina import NAMES, ask, read
from serving.api.models import find
from serving.api.vectors import write_list
from serving.batches.lines import Reader, Reading
from serving.service import Service

__all__ = ["OPTIONS", "reader"]

OPTIONS = frozenset(name for field, names in NAMES.items() if field != "input" for name in names)
"""What a batch may say for all of its lines."""


def reader(service: Service, token_ids: bool = False) -> Reader:
    """How the batches of that service read their lines, whose inputs may be `token_ids`."""
    return partial(_read, service, token_ids)


def _read(service: Service, token_ids: bool, body: Mapping[str, object]) -> Reading:
    wanted = read(body, service.max_inputs, token_ids)
    spec = find(service.catalog, wanted.model)
    write = partial(write_list, spec.id, types=wanted.types)
    return Reading(ask(wanted, spec), write)
