"""The pooler alone, step by step, and the settings that an engine is started with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from serving.engines._pooling import Extent, pool
from serving.engines._vllm.packing import Answer, Facts, Wish, answer
from serving.models.spec import Dense, ModelSpec, MultiVector, Pooling, PoolingMode
from tests.vllm_engines import needs_vllm

HIDDEN, WIDE = 24, 5
LENGTHS = (7, 1, 20)
NEAR = {"rtol": 0.0, "atol": 1e-5}


def spec_of(path: Path, *modes: PoolingMode, **facts: Any) -> ModelSpec:
    facts = {"pooling": Pooling(modes), "normalize": True, **facts}
    return ModelSpec("m", "none", str(path), "", HIDDEN * len(modes), 512, **facts)


@pytest.fixture
def states() -> list[Tensor]:
    torch.manual_seed(3)
    return [torch.randn(length, HIDDEN + WIDE) for length in LENGTHS]


class Steps:
    """Inputs in a real pooler, given to it in chunks of any sizes, as vLLM does."""

    def __init__(self, spec: ModelSpec, states: Sequence[Tensor], wishes: Sequence[Wish]) -> None:
        needs_vllm()
        from vllm import PoolingParams
        from vllm.v1.pool.metadata import PoolingStates

        from serving.engines._vllm.pooler import SpanPooler

        facts = Facts.unpacked(Facts.of(spec).packed())
        self.spec, self.states, self.wishes = spec, states, wishes
        self.pooler = SpanPooler(facts)
        self.params = [PoolingParams(task="embed", extra_kwargs=w._asdict()) for w in wishes]
        self.kept = [PoolingStates() for _ in states]
        self.done = [0] * len(states)

    def step(self, counts: dict[int, int]) -> dict[int, Answer]:
        """So many more tokens of those inputs; the answers of the inputs that end with them."""
        from vllm.v1.pool.metadata import PoolingMetadata

        places = list(counts)
        parts = [self.states[at][self.done[at] : self.done[at] + counts[at]] for at in places]
        for at in places:
            self.done[at] += counts[at]
        lengths = torch.tensor([len(self.states[at]) for at in places])
        metadata = PoolingMetadata(
            lengths,
            None,
            None,
            [self.params[at] for at in places],
            [self.kept[at] for at in places],
        )
        metadata.build_pooling_cursor(
            np.array(list(counts.values())),
            torch.tensor([self.done[at] for at in places]),
            torch.device("cpu"),
        )
        rows = self.pooler(torch.cat(parts), metadata)
        return {
            at: answer(row.numpy(), self.wishes[at], len(self.states[at]), self.spec)
            for at, row in zip(places, rows, strict=True)
            if row is not None
        }


CHUNKS = [
    [{0: 7, 1: 1, 2: 20}],
    [{0: 3, 2: 4}, {2: 1, 0: 4}, {1: 1, 2: 9}, {2: 6}],
]


@pytest.mark.parametrize("steps", CHUNKS)
@pytest.mark.parametrize(
    "modes", [("mean",), ("cls",), ("last",), ("max", "mean_sqrt_len"), ("last", "mean", "cls")]
)
def test_every_mode_is_that_of_the_torch_engine_in_one_step_or_many(
    tmp_path: Path, states: list[Tensor], modes: tuple[PoolingMode, ...], steps: Any
) -> None:
    wishes = [Wish(skip=2), Wish(skip=2, dimensions=9), Wish(dimensions=9, normalized=False)]
    given = Steps(spec_of(tmp_path, *modes), [one[:, :HIDDEN] for one in states], wishes)
    found = {at: one for counts in steps for at, one in given.step(counts).items()}
    padded = torch.nn.utils.rnn.pad_sequence([one[:, :HIDDEN] for one in states], batch_first=True)
    pooled = pool(padded, Extent(list(LENGTHS), [2, 2, 0], torch.device("cpu")), modes)
    whole = torch.nn.functional.normalize(pooled, dim=-1)
    short = torch.nn.functional.normalize(whole[1, :9], dim=-1)
    for at, wanted in enumerate((whole[0], short, whole[2, :9])):
        assert found[at].tokens == LENGTHS[at]
        assert np.allclose(found[at].dense, wanted[None], **NEAR)


@pytest.mark.parametrize("steps", CHUNKS)
def test_spans_give_sums_and_every_span_has_one(
    tmp_path: Path, states: list[Tensor], steps: Any
) -> None:
    spans = [[[0, 3], [2, 7], [3, 4]], [[0, 1]], [[0, 20], [19, 20], [4, 5], [0, 4]]]
    given = Steps(spec_of(tmp_path, "mean"), [one[:, :HIDDEN] for one in states], [])
    given = Steps(given.spec, given.states, [Wish(spans=one, dimensions=3) for one in spans])
    found = {at: one for counts in steps for at, one in given.step(counts).items()}
    for at, pieces in enumerate(spans):
        sums = [given.states[at][start:end].sum(0) for start, end in pieces]
        assert np.allclose(found[at].dense, torch.stack(sums), **NEAR)


@pytest.mark.parametrize("steps", CHUNKS)
def test_projected_columns_become_unit_rows_beside_the_vector(
    tmp_path: Path, states: list[Tensor], steps: Any
) -> None:
    spec = spec_of(tmp_path, "mean", multi=MultiVector(WIDE, skip=3))
    given = Steps(spec, states, [Wish(multi=True), Wish(multi=True), Wish(dense=False, multi=True)])
    found = {at: one for counts in steps for at, one in given.step(counts).items()}
    for at, one in enumerate(states):
        rows = torch.nn.functional.normalize(one[3:, HIDDEN:], dim=-1)
        assert np.allclose(found[at].multi, rows, **NEAR)
    mean = torch.nn.functional.normalize(states[0][:, :HIDDEN].mean(0), dim=-1)
    assert np.allclose(found[0].dense, mean[None], **NEAR)
    assert found[2].dense is None


def test_dense_heads_stay_exact_in_a_model_of_another_number_type(
    tmp_path: Path, states: list[Tensor]
) -> None:
    linear = torch.nn.Linear(HIDDEN, 6)
    named = {f"linear.{name}": one for name, one in linear.state_dict().items()}
    save_file(named, tmp_path / "model.safetensors")
    dense = Dense("", "model.safetensors", HIDDEN, 6, True, "torch.nn.modules.activation.Tanh")
    spec = spec_of(tmp_path, "cls", heads=(dense,))
    torch.set_default_dtype(torch.bfloat16)  # as it is while vLLM builds a model
    try:
        given = Steps(spec, [one[:, :HIDDEN] for one in states[:1]], [Wish()])
    finally:
        torch.set_default_dtype(torch.float32)
    wanted = torch.nn.functional.normalize(torch.tanh(linear(states[0][0, :HIDDEN])), dim=-1)
    assert np.allclose(given.step({0: 7})[0].dense, wanted.detach()[None], **NEAR)


def test_an_input_that_was_put_back_starts_anew(tmp_path: Path, states: list[Tensor]) -> None:
    given = Steps(spec_of(tmp_path, "mean"), [states[2][:, :HIDDEN]], [Wish()])
    given.step({0: 12})
    given.done[0] = 0
    found = given.step({0: 20})[0]
    mean = torch.nn.functional.normalize(states[2][:, :HIDDEN].mean(0), dim=-1)
    assert np.allclose(found.dense, mean[None], **NEAR)
    assert found.tokens == 20


def test_what_was_not_seen_is_counted(tmp_path: Path, states: list[Tensor]) -> None:
    given = Steps(spec_of(tmp_path, "last"), [states[2][:, :HIDDEN]], [Wish()])
    given.done[0] = 16  # the rest was in vLLM's cache
    found = given.step({0: 4})[0]
    assert found.tokens == 4
    last = torch.nn.functional.normalize(states[2][-1, :HIDDEN], dim=-1)
    assert np.allclose(found.dense, last[None], **NEAR)


def test_of_a_long_input_only_sums_are_kept(tmp_path: Path) -> None:
    long = torch.randn(5000, HIDDEN)
    given = Steps(spec_of(tmp_path, "mean"), [long], [Wish(spans=[[0, 2500], [2500, 5000]])])
    sizes = set()
    for _ in range(49):
        given.step({0: 100})
        [running] = given.kept[0].hidden_states_cache
        sizes.add(sum(one.numel() for one in running.sums if one is not None))
        sizes.add(len(running.multi) + len(running.sparse))
    assert sizes == {0, HIDDEN, 2 * HIDDEN}
    found = given.step({0: 100})[0]
    sums = torch.stack([long[:2500].sum(0), long[2500:].sum(0)])
    assert np.allclose(found.dense, sums, rtol=0, atol=1e-3)
