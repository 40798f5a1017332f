"""Public model ids and their aliases, and what an operator says about a model."""

from __future__ import annotations

from dataclasses import dataclass

from serving.models.spec import TaskSpec

__all__ = ["Entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model as it is asked for: which files, under which names, with which overrides.

    `source` is a directory, a hub id, or `package:NAME`; `family` a file in `families/` or None to
    recognise it; None elsewhere means: what the checkpoint says.
    """

    id: str
    source: str
    aliases: tuple[str, ...] = ()
    family: str | None = None
    revision: str | None = None
    licence: str | None = None
    max_tokens: int | None = None
    matryoshka: tuple[int, ...] | None = None
    extra_tasks: tuple[TaskSpec, ...] = ()
