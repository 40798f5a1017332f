"""What every family in `serving/models/families/` promises. A new file enrols by being there."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import cast

import pytest

from serving.models.catalog import DEFAULT, Entry, find
from serving.models.checkpoints import Checkpoint, resolve
from serving.models.families import FAMILIES, ModelFamily
from serving.models.spec import ModelSpec
from tests.checkpoints import NAMES, build

ENTRY = Entry("one", "x", aliases=("uno",), licence="a licence")


@pytest.fixture(params=FAMILIES.names())
def family(request: pytest.FixtureRequest) -> ModelFamily:
    return cast("ModelFamily", FAMILIES.load(request.param))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    """Every tiny checkpoint, and the default model."""
    folder = tmp_path_factory.mktemp("checkpoints")
    default = find(DEFAULT)
    assert default is not None
    tiny = [resolve(str(build(name, folder))) for name in NAMES]
    return [*tiny, resolve(default.source)]


@pytest.fixture
def specs(family: ModelFamily, checkpoints: list[Checkpoint]) -> list[ModelSpec]:
    """What the family reads in those that are its own."""
    return [family.read(one, ENTRY) for one in checkpoints if family.recognises(one)]


def test_a_family_recognises_something_and_not_everything(
    family: ModelFamily, specs: list[ModelSpec], tmp_path: Path
) -> None:
    assert specs
    assert not family.recognises(Checkpoint(tmp_path, "an empty folder"))


def test_what_the_operator_says_is_in_the_spec(specs: list[ModelSpec]) -> None:
    assert {(spec.id, spec.aliases) for spec in specs} == {("one", ("uno",))}
    assert all(spec.licence for spec in specs)


def test_a_spec_knows_its_family_and_where_its_files_are(specs: list[ModelSpec]) -> None:
    for spec in specs:
        assert spec.family in FAMILIES
        assert (Path(spec.path) / spec.transformer / "config.json").is_file()
        assert all((Path(spec.path) / head.folder / head.weights).is_file() for head in spec.heads)


def test_sizes_are_positive_and_widths_ascend_below_the_full_one(specs: list[ModelSpec]) -> None:
    for spec in specs:
        assert min(spec.dimensions, spec.max_tokens, *spec.matryoshka) > 0
        assert list(spec.matryoshka) == sorted({*spec.matryoshka} - {spec.dimensions})
        assert (spec.default_dimensions or spec.dimensions) in (*spec.matryoshka, spec.dimensions)


def test_no_two_tasks_answer_to_one_name(specs: list[ModelSpec]) -> None:
    for spec in specs:
        names = [name for task in spec.tasks for name in (task.name, *task.aliases)]
        assert len(set(names)) == len(names)
        assert spec.default_task in (None, *(task.name for task in spec.tasks))


def test_a_spec_is_a_value(
    family: ModelFamily, checkpoints: list[Checkpoint], specs: list[ModelSpec]
) -> None:
    assert pickle.loads(pickle.dumps(specs)) == specs
    again = [family.read(one, ENTRY) for one in checkpoints if family.recognises(one)]
    assert again == specs
