"""A line of a batch in the words of `POST /v1/embeddings`: read, and its answer written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from serving.api.dialects.jina import NAMES, read
from serving.api.embedding import cuts
from serving.api.fields import refuse
from serving.api.models import find
from serving.api.vectors import write_list
from serving.batches.lines import Reader, Reading
from serving.service import Service
from serving.values import Ask

__all__ = ["OPTIONS", "reader"]

OPTIONS = frozenset(name for field, names in NAMES.items() if field != "input" for name in names)
"""What a batch may say for all of its lines."""


def reader(service: Service) -> Reader:
    """How the batches of that service read their lines."""
    return partial(_read, service)


def _read(service: Service, body: Mapping[str, object]) -> Reading:
    wanted = read(body, service.max_inputs)
    spec, options = find(service.catalog, wanted.model), wanted.options
    refuse(wanted.refusals, spec.id)
    ask = Ask(
        spec.id,
        wanted.items,
        options.task,
        options.role,
        options.output,
        cuts(spec, options.truncate_to) or options.truncate,
        options.late_chunking,
        options.max_pixels,
    )
    return Reading(ask, lambda answer: write_list(spec.id, answer, wanted.types))
