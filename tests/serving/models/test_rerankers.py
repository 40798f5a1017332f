"""The facts of the rerankers, from upstream's layouts, and what is said of broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor

from serving.models.checkpoints import resolve
from serving.models.families import FAMILIES
from serving.models.spec import Listwise, Pairwise, Pooling
from tests.serving.models.reading import change_tensors, refusal, rewrite, spec_of
from tests.upstream import NAMES, RERANKERS, build
from tests.upstream.rerankers import write_qwen3_reranker

EXPECTED = {
    "jina_reranker_m0": (Pairwise, 1, 1400, ("text", "image")),
    "jina_reranker_v3": (Listwise, 512, 3600, ("text",)),
    "qwen3_reranker": (Pairwise, 1, 700, ("text",)),
}


@pytest.mark.parametrize("name", RERANKERS)
def test_a_reranker_is_known_by_its_files(name: str, tmp_path: Path) -> None:
    path = build(name, tmp_path)
    spec = spec_of(path)
    assert spec.family == name
    found = type(spec.reranker), spec.dimensions, spec.max_tokens, spec.modalities
    assert found == EXPECTED[name]
    assert (spec.pooling, spec.normalize, spec.literal) == (Pooling(("last",)), False, True)
    special = [one for one in FAMILIES.names() if one != "sentence_transformers"]
    assert [one for one in special if FAMILIES.load(one).recognises(resolve(str(path)))] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_what_embeds_is_no_reranker(name: str, tmp_path: Path) -> None:
    assert spec_of(build(name, tmp_path)).reranker is None


@pytest.mark.parametrize("name", RERANKERS)
def test_a_view_leads_to_no_remote_code_and_has_its_layers_apart(name: str, tmp_path: Path) -> None:
    """vLLM takes every safetensors file beside the weights for more of them."""
    spec = spec_of(build(name, tmp_path))
    view = Path(spec.path)
    assert "auto_map" not in json.loads((view / "config.json").read_text())
    assert not list(view.glob("*.py"))
    assert [one.name for one in view.glob("*.safetensors")] == ["model.safetensors"]
    assert all((view / one.folder / one.weights).is_file() for one in spec.heads)


# Qwen3-Reranker


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_is_yes_less_no(tied: bool, tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    path.mkdir()
    write_qwen3_reranker(path, tied)
    weights = load_file(path / "model.safetensors")
    outputs = weights["model.embed_tokens.weight" if tied else "lm_head.weight"].float()
    vocabulary = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    yes, no = (outputs[vocabulary[word]] for word in ("yes", "no"))
    spec = spec_of(path)
    head = load_file(Path(spec.path) / "head" / "model.safetensors")["weight"]
    np.testing.assert_array_equal(head.numpy(), (yes - no)[None].numpy())


def test_a_card_that_says_nothing_of_ranking_leaves_it_to_the_operator(tmp_path: Path) -> None:
    path = build("qwen3_reranker", tmp_path)
    (path / "README.md").write_text("---\nlicense: mit\n---\n# For text-ranking\n")
    assert spec_of(path).reranker is None
    assert spec_of(path, family="qwen3_reranker").reranker is not None


def test_a_vocabulary_without_the_answer_is_refused(tmp_path: Path) -> None:
    path = build("qwen3_reranker", tmp_path)
    text = (path / "tokenizer.json").read_text().replace('"yes"', '"yez"')
    (path / "tokenizer.json").write_text(text)
    assert refusal(path) == "has no token 'yes' in its vocabulary"


# jina-reranker-m0 and -v3


def without(name: str) -> object:
    return lambda found: {key: one for key, one in found.items() if key != name}


@pytest.mark.parametrize(
    ("name", "missing"),
    [("jina_reranker_m0", "score.2.bias"), ("jina_reranker_v3", "projector.0.weight")],
)
def test_a_layer_that_is_missing_is_named(name: str, missing: str, tmp_path: Path) -> None:
    path = build(name, tmp_path)
    change_tensors(path / "model.safetensors", without(missing))  # type: ignore[arg-type]
    assert refusal(path) == f"has no {missing} among its weights"


def test_a_projector_of_another_width_is_refused(tmp_path: Path) -> None:
    def narrow(found: dict[str, Tensor]) -> dict[str, Tensor]:
        return found | {"projector.2.weight": found["projector.2.weight"][:256]}

    path = build("jina_reranker_v3", tmp_path)
    change_tensors(path / "model.safetensors", narrow)
    wanted = "has the shape [256, 40] for projector.2.weight in model.safetensors, not [512, 40]"
    assert refusal(path) == wanted


def test_v3_on_a_backbone_that_is_not_known_is_not_v3(tmp_path: Path) -> None:
    path = build("jina_reranker_v3", tmp_path)
    rewrite(path, "config.json", model_type="qwen3_next")
    assert not FAMILIES.load("jina_reranker_v3").recognises(resolve(str(path)))


def test_m0_bounds_images_as_upstreams_code_does_and_not_its_files(tmp_path: Path) -> None:
    path = build("jina_reranker_m0", tmp_path)
    vision = spec_of(path).vision
    assert vision is not None
    assert (vision.min_pixels, vision.max_pixels) == (3136, 602112)
    smaller = spec_of(path, max_pixels=90000).vision
    assert smaller is not None and smaller.max_pixels == 90000
