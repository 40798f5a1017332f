"""The torch engine against plain transformers and peft: adapters, spans, multi-vectors, heads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from serving.engines._calls import Input
from serving.models.spec import Dense, ModelSpec
from serving.values import Output
from tests.adapted import MAKERS, write_adapter
from tests.serving.engines.harness import LENGTHS, NEAR, TEXTS, Given, embed, opened, unit


def pooled(spec: ModelSpec, states: torch.Tensor) -> torch.Tensor:
    """By hand, as the model's spec says."""
    [mode] = spec.pooling.modes
    return {"mean": states.mean(0), "last": states[-1], "cls": states[0]}[mode]


@pytest.mark.parametrize("name", list(MAKERS))
async def test_a_batch_of_mixed_adapters_agrees_with_peft_row_by_row(
    given: Given, name: str, forwards: list[Sequence[Input]]
) -> None:
    spec, reference = given(name)
    adapters = [None, *(one.name for one in spec.adapters)]
    async with opened(spec) as engine:
        answers = await asyncio.gather(*(embed(engine, TEXTS, adapter=one) for one in adapters))
    assert any({one.adapter for one in batch} == {*adapters} for batch in forwards)
    for adapter, answer in zip(adapters, answers, strict=True):
        theirs = [unit(pooled(spec, reference.states(text, adapter))) for text in TEXTS]
        assert np.allclose(answer.array, theirs, **NEAR)
    for one, other in pairwise(answers):
        assert np.abs(one.array - other.array).max() > 0.01


async def test_a_mixed_batch_equals_separate_ones(given: Given) -> None:
    for name in ("qwen_vl", "rotary"):
        spec, _ = given(name)
        adapters = [None, *(one.name for one in spec.adapters)]
        async with opened(spec) as engine:
            mixed = await asyncio.gather(*(embed(engine, TEXTS, adapter=one) for one in adapters))
            for adapter, answer in zip(adapters, mixed, strict=True):
                alone = [await embed(engine, [text], adapter=adapter) for text in TEXTS]
                assert np.allclose(answer.array, [one.array[0] for one in alone], atol=1e-6)


async def test_trap_18_an_adapter_of_embeddings_changes_them_by_its_transposed_factors(
    given: Given, tmp_path: Path
) -> None:
    spec, reference = given("rotary")
    words = reference.model.embeddings.word_embeddings
    base = getattr(words, "base_layer", words)
    adapter = write_adapter(
        tmp_path / "words", [("embeddings.word_embeddings", base)], rank=4, alpha=1
    )
    lora = load_file(tmp_path / "words" / "adapter_model.safetensors")
    a, b = (lora[f"base_model.model.embeddings.word_embeddings.lora_embedding_{x}"] for x in "AB")
    assert a.shape == (4, 300) and b.shape == (64, 4)
    path = tmp_path / "changed"
    path.mkdir()
    weights = load_file(Path(spec.path) / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += 0.25 * (b @ a).T
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text((Path(spec.path) / "config.json").read_text())
    changed = replace(spec, path=str(path), adapters=())
    async with opened(replace(spec, adapters=(adapter,))) as ours, opened(changed) as theirs:
        answer = await embed(ours, TEXTS, adapter="words")
        assert np.allclose(answer.array, (await embed(theirs, TEXTS)).array, **NEAR)


async def test_trap_4_eurobert_looks_both_ways_and_qwen3_only_back(given: Given) -> None:
    first = Output(dense=True)
    for name, sees in (("eurobert", True), ("qwen3", False)):
        spec, _ = given(name)
        spans = np.array([[0, 0, 0, 1]], np.int32)
        async with opened(spec) as engine:
            one = await embed(engine, [[10, 11, 12]], output=first, spans=spans)
            other = await embed(engine, [[10, 11, 13]], output=first, spans=spans)
        assert bool(np.abs(one.array - other.array).max() > 1e-3) is sees


async def test_trap_19_the_last_token_is_the_last_real_one_beside_longer_inputs(
    given: Given,
) -> None:
    for name in ("qwen3", "eurobert"):
        spec, reference = given(name)
        async with opened(spec) as engine:
            answer = await embed(engine, TEXTS, adapter="retrieval")
        theirs = [unit(reference.states(text, "retrieval")[len(text) - 1]) for text in TEXTS]
        assert np.allclose(answer.array, theirs, **NEAR)


SPANS = np.array([[0, 0, 0, 4], [1, 0, 4, 9], [2, 2, 3, 29], [3, 4, 0, 17], [4, 4, 5, 6]], np.int32)


async def test_trap_1_a_span_is_the_mean_of_raw_states_and_not_of_unit_ones(given: Given) -> None:
    spec, reference = given("qwen_vl")
    async with opened(spec) as engine:
        answer = await embed(engine, TEXTS, adapter="retrieval", spans=SPANS)
    states = [reference.states(text, "retrieval") for text in TEXTS]
    raw = [unit(states[at][a:b].mean(0)) for _, at, a, b in SPANS.tolist()]
    units = [unit(torch.tensor(unit(states[at][a:b])).mean(0)) for _, at, a, b in SPANS.tolist()]
    assert np.allclose(answer.array, raw, **NEAR)
    assert np.abs(np.array(raw) - np.array(units)).max() > 1e-3


@pytest.mark.parametrize("batch_tokens", [4096, 16])
async def test_a_vector_over_several_inputs_weighs_each_token_the_same(
    given: Given, forwards: list[Sequence[Input]], batch_tokens: int
) -> None:
    spec, reference = given("rotary")
    spans = np.array([[0, 0, 1, 8], [0, 2, 4, 30], [0, 4, 16, 17], [1, 4, 0, 3]], np.int32)
    async with opened(spec, batch_tokens=batch_tokens) as engine:
        answer = await embed(engine, TEXTS, adapter="separation", spans=spans)
        short = Output(dimensions=16)
        cut = await embed(engine, TEXTS, adapter="separation", spans=spans, output=short)
    states = [reference.states(text, "separation") for text in TEXTS]
    together = torch.cat([states[at][a:b] for _, at, a, b in spans[:3].tolist()]).mean(0)
    theirs = np.stack([unit(together), unit(states[4][:3].mean(0))])
    assert np.allclose(answer.array, theirs, **NEAR)
    prefix = theirs[:, :16] / np.linalg.norm(theirs[:, :16], axis=1, keepdims=True)
    assert np.allclose(cut.array, prefix, **NEAR)
    assert (len(forwards) > 4) is (batch_tokens == 16)


async def test_the_dense_layers_after_pooling_come_after_spans_too(
    given: Given, tmp_path: Path
) -> None:
    spec, reference = given("rotary")
    linear = torch.nn.Linear(64, 24)
    torch.save(linear.state_dict(), tmp_path / "dense.bin")
    dense = Dense(str(tmp_path), "dense.bin", 64, 24, True, "torch.nn.Tanh")
    async with opened(replace(spec, heads=(dense,), dimensions=24)) as engine:
        answer = await embed(engine, TEXTS, spans=SPANS)
    states = [reference.states(text) for text in TEXTS]
    means = [states[at][start:end].mean(0) for _, at, start, end in SPANS.tolist()]
    with torch.inference_mode():
        theirs = [unit(torch.tanh(linear(mean))) for mean in means]
    assert np.allclose(answer.array, theirs, **NEAR)


async def test_multi_vectors_go_through_the_projector_and_its_adapter(
    given: Given, forwards: list[Sequence[Input]]
) -> None:
    spec, reference = given("qwen_vl")
    adapters = [None, *(one.name for one in spec.adapters)]
    output = Output(multi=True)
    async with opened(spec) as engine:
        answers = await asyncio.gather(
            *(embed(engine, TEXTS, adapter=one, output=output) for one in adapters),
            embed(engine, TEXTS),
        )
    assert len(forwards) <= 3
    for adapter, answer in zip(adapters, answers, strict=False):
        states = [reference.states(text, adapter) for text in TEXTS]
        assert answer.multi is not None
        assert answer.multi.counts.tolist() == [*LENGTHS]
        theirs = [reference.projected(one, adapter) for one in states]
        assert np.allclose(answer.multi.values, np.concatenate(theirs), **NEAR)
        assert np.allclose(answer.array, [unit(one.mean(0)) for one in states], **NEAR)


async def test_trap_15_a_shorter_vector_is_cut_first_and_a_multi_vector_never(given: Given) -> None:
    spec, reference = given("qwen_vl")
    output = Output(dimensions=16, multi=True)
    async with opened(spec) as engine:
        answer = await embed(engine, TEXTS, output=output)
        raw = await embed(engine, TEXTS, output=Output(dimensions=16, normalized=False))
    whole = np.stack([unit(reference.states(text).mean(0)) for text in TEXTS])
    cut = whole[:, :16]
    assert np.allclose(answer.array, cut / np.linalg.norm(cut, axis=1, keepdims=True), **NEAR)
    assert np.allclose(raw.array, cut, **NEAR)
    assert answer.multi is not None and answer.multi.values.shape == (sum(LENGTHS), 20)


async def test_one_forward_gives_the_heads_of_bge_m3(
    given: Given, forwards: list[Sequence[Input]]
) -> None:
    spec, reference = given("heads")
    texts = [[0, *text, *text[:2], 2] for text in TEXTS]
    async with opened(spec) as engine:
        answer = await embed(engine, texts, output=Output(multi=True, sparse=True))
    assert sum(map(len, forwards)) == len(texts)
    files = [
        torch.load(Path(spec.path) / name) for name in ("colbert_linear.pt", "sparse_linear.pt")
    ]
    colbert, sparse = files
    assert answer.multi is not None and answer.sparse is not None
    assert answer.multi.counts.tolist() == [len(text) - 1 for text in texts]
    ends = np.cumsum(answer.sparse.counts)
    rows = []
    for text, end, count in zip(texts, ends, answer.sparse.counts, strict=True):
        states = reference.states(text)
        rows.append(unit(states[1:] @ colbert["weight"].T + colbert["bias"]))
        weights = torch.relu(states @ sparse["weight"].T + sparse["bias"])[:, 0].tolist()
        best: dict[int, float] = {}
        for token, weight in zip(text, weights, strict=True):
            if weight > 0 and token > 3:
                best[token] = max(best.get(token, 0.0), weight)
        ids = answer.sparse.ids[end - count : end].tolist()
        assert ids == sorted(best)
        assert np.allclose(answer.sparse.weights[end - count : end], [best[i] for i in ids], **NEAR)
    assert ends[-1] > 5
    assert np.allclose(answer.multi.values, np.concatenate(rows), **NEAR)
