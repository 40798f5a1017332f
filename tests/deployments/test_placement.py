"""Which groups a config becomes."""

from __future__ import annotations

from deployments.config import parse_config
from deployments.placement import cpus_needed, place
from serving.models.spec import ModelSpec, TaskSpec

RAW = {"models": [{"id": "m", "source": "s", "placement": "per_task", "replicas": {"max": 3}}]}


def spec(default_task: str | None = None) -> ModelSpec:
    tasks = (TaskSpec("query"), TaskSpec("passage"))
    return ModelSpec("m", "f", "/", "s", 8, 16, tasks=tasks, default_task=default_task)


def test_a_shared_model_is_one_group() -> None:
    groups = place(parse_config({"models": [{"id": "m", "source": "s"}]}), {})
    assert [(g.name, g.task) for g in groups] == [("Replica:m", None)]


def test_per_task_is_a_group_for_each_task_and_one_for_none() -> None:
    groups = place(parse_config(RAW), {"m": spec()})
    assert [g.task for g in groups] == [None, "query", "passage"]
    assert len({g.name for g in groups}) == 3


def test_a_default_task_leaves_no_group_for_none() -> None:
    assert [g.task for g in place(parse_config(RAW), {"m": spec("query")})] == ["query", "passage"]


def test_the_cpus_of_a_rollout_are_those_of_all_its_parts() -> None:
    config = parse_config({**RAW, "preprocessor": {"text": "deployment"}})
    assert cpus_needed(config, place(config, {"m": spec()})) == 1 + 1 + 3 * 3
