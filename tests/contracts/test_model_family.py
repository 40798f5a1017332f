"""What every family in `serving/models/families/` promises. A new file enrols by being there."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from serving.models.catalog import DEFAULT, Entry, find
from serving.models.checkpoints import Checkpoint, resolve
from serving.models.families import FAMILIES, ModelFamily
from serving.models.loading import family_of
from serving.models.spec import ModelSpec
from tests import checkpoints as general
from tests import upstream

ENTRY = Entry("one", "x", aliases=("uno",), licence="a licence")


@pytest.fixture(params=FAMILIES.names())
def family(request: pytest.FixtureRequest) -> ModelFamily:
    return cast("ModelFamily", FAMILIES.load(request.param))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of their own for what families make of checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYVEC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, cache: None) -> list[Checkpoint]:
    """Every tiny checkpoint, and the default model."""
    folder = tmp_path_factory.mktemp("checkpoints")
    default = find(DEFAULT)
    assert default is not None
    tiny = [
        resolve(str(kind.build(name, folder)))
        for kind, names in (
            (general, general.NAMES),
            (upstream, (*upstream.NAMES, *upstream.RERANKERS)),
        )
        for name in names
    ]
    return [*tiny, resolve(default.source)]


@pytest.fixture
def specs(family: ModelFamily, checkpoints: list[Checkpoint]) -> list[ModelSpec]:
    """What the family reads in those that are its own."""
    return [family.read(one, ENTRY) for one in checkpoints if family_of(one) is family]


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
        others = [spec.multi and spec.multi.head, spec.sparse and spec.sparse.head]
        for head in (*spec.heads, *filter(None, others)):
            assert (Path(spec.path) / head.folder / head.weights).is_file()


def test_every_adapter_of_a_task_is_there_in_pefts_layout(specs: list[ModelSpec]) -> None:
    for spec in specs:
        names = {adapter.name for adapter in spec.adapters}
        assert {task.adapter for task in spec.tasks} <= {None, *names}
        for adapter in spec.adapters:
            config = json.loads((Path(adapter.path) / "adapter_config.json").read_text())
            assert (config["peft_type"], config["r"]) == ("LORA", adapter.rank)
            assert (Path(adapter.path) / "adapter_model.safetensors").is_file()


def test_what_a_spec_says_of_modalities_and_late_chunks_fits(specs: list[ModelSpec]) -> None:
    for spec in specs:
        assert ("image" in spec.modalities) == (spec.vision is not None)
        assert not spec.late_chunking or spec.pooling.modes == ("mean",)


def test_a_process_that_only_tokenizes_reads_the_same_tasks(
    family: ModelFamily, checkpoints: list[Checkpoint], specs: list[ModelSpec]
) -> None:
    own = [one for one in checkpoints if family_of(one) is family]
    for checkpoint, spec in zip(own, specs, strict=True):
        other = family.read(replace(checkpoint, weights=False), ENTRY)
        assert (other.tasks, other.path) == (spec.tasks, str(checkpoint.path))


def test_sizes_are_positive_and_widths_ascend_below_the_full_one(specs: list[ModelSpec]) -> None:
    for spec in specs:
        assert min(spec.dimensions, spec.max_tokens, *spec.matryoshka) > 0
        assert list(spec.matryoshka) == sorted({*spec.matryoshka} - {spec.dimensions})
        assert spec.least_dimensions is None or not spec.matryoshka
        assert (spec.least_dimensions or 1) <= spec.dimensions
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
    again = [family.read(one, ENTRY) for one in checkpoints if family_of(one) is family]
    assert again == specs
