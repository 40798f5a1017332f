"""Prompts of a checkpoint as tasks, under the names that other wires have for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from serving.models.checkpoints import Facts
from serving.models.spec import TaskSpec

__all__ = ["from_prompts", "with_extras"]

# What each prompt's name is called on other wires; the first name that a model has, has it.
_MEANINGS: dict[str, tuple[str, ...]] = {
    "retrieval.query": ("query", "search_query", "retrieval-query"),
    "retrieval.passage": ("passage", "document", "search_document", "retrieval-document", "corpus"),
    "clustering": ("clustering",),
    "separation": ("clustering",),
    "classification": ("classification",),
    "text-matching": ("sts",),
}


def from_prompts(prompts: Facts) -> tuple[TaskSpec, ...]:
    """One task for each prompt, `{name: prefix}`."""
    names = tuple(prompts.values)
    return tuple(TaskSpec(name, prompts.text(name) or "", _aliases(name, names)) for name in names)


def with_extras(own: Iterable[TaskSpec], extras: Iterable[TaskSpec]) -> tuple[TaskSpec, ...]:
    """The checkpoint's tasks and the operator's; a name is the operator's where both have it."""
    theirs = {task.name: task for task in extras}
    taken = {name for task in theirs.values() for name in (task.name, *task.aliases)}
    kept = (
        replace(task, aliases=tuple(one for one in task.aliases if one not in taken))
        for task in own
    )
    return tuple(({task.name: task for task in kept} | theirs).values())


def _aliases(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """The other names of the task `name` in a model that has the tasks `names`."""
    owners = {one.casefold(): one for one in reversed(names)}
    return tuple(
        meaning
        for meaning, known in _MEANINGS.items()
        if meaning not in names and _first_of(owners, known) == name
    )


def _first_of(owners: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((owners[name] for name in names if name in owners), None)
