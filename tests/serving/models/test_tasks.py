"""Prompts to tasks, and the operator's own tasks among them."""

from __future__ import annotations

from serving.models.checkpoints import Facts
from serving.models.families._tasks import from_prompts, with_extras
from serving.models.spec import TaskSpec


def aliases_of(*names: str) -> dict[str, tuple[str, ...]]:
    tasks = from_prompts(Facts("prompts", dict.fromkeys(names, "x")))
    return {task.name: task.aliases for task in tasks}


def test_a_prompt_of_null_is_empty() -> None:
    assert from_prompts(Facts("prompts", {"code": None})) == (TaskSpec("code"),)


def test_prompts_are_known_by_the_names_of_other_wires() -> None:
    names = ("search_document", "search_query", "Clustering", "classification", "STS", "code")
    assert aliases_of(*names) == {
        "search_document": ("retrieval.passage",),
        "search_query": ("retrieval.query",),
        "Clustering": ("clustering", "separation"),
        "classification": (),
        "STS": ("text-matching",),
        "code": (),
    }


def test_one_task_alone_has_an_alias() -> None:
    assert aliases_of("Retrieval-query", "query", "retrieval.passage", "document") == {
        "Retrieval-query": (),
        "query": ("retrieval.query",),
        "retrieval.passage": (),
        "document": (),
    }


def test_the_operators_tasks_come_last_and_win() -> None:
    own = from_prompts(Facts("prompts", {"query": "query: ", "passage": "passage: "}))
    mine = TaskSpec("query", "find: "), TaskSpec("title", "title: ", ("retrieval.passage",))
    assert with_extras(own, mine) == (mine[0], TaskSpec("passage", "passage: "), mine[1])
