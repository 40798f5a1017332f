"""Which groups a config becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.config import parse_config
from deployments.placement import cpus_needed, place, share_gpus, wants_preprocessor
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
    assert cpus_needed(config, place(config, {"m": spec()}), {"m": spec()}) == 1 + 1 + 3 * 3


def test_a_model_of_images_has_a_preprocessor_wherever_texts_are_tokenized() -> None:
    config = parse_config(RAW)
    image = replace(spec(), modalities=("text", "image"))
    assert not wants_preprocessor(config, {"m": spec()})
    assert wants_preprocessor(config, {"m": spec(), "n": image})
    asked = parse_config({**RAW, "preprocessor": {"text": "deployment"}})
    assert wants_preprocessor(asked, {"m": spec()})


@pytest.mark.parametrize(
    ("gpus", "shares"),
    [
        (0, [None, None, 0.5]),
        (1, [None, None, 0.5]),
        (2, [1 / 4, None, 0.5]),
        (3, [1 / 2, None, 0.5]),
        (9, [1, None, 0.5]),
    ],
)
def test_the_gpus_of_a_machine_are_shared_by_who_has_not_said(
    gpus: float, shares: list[float | None]
) -> None:
    config = parse_config(
        {
            "models": [
                {"id": "a", "source": "s", "replicas": {"max": 4}},
                {"id": "b", "source": "s", "engine": "noop"},
                {"id": "c", "source": "s", "gpus_per_replica": 0.5},
            ]
        }
    )
    shared = share_gpus(config, place(config, {}), gpus)
    assert [model.gpus_per_replica for model in shared.models] == shares


def test_parts_of_a_gpu_fit_the_machine() -> None:
    config = parse_config({"models": [{"id": "a", "source": "s", "replicas": {"max": 7}}]})
    [model] = share_gpus(config, place(config, {}), 3).models
    assert model.gpus_per_replica == 1 / 3
