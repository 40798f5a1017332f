"""The torch engine against sentence-transformers, and against memory, bad files and long queues."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from serving.engines import EngineOptions
from serving.engines._calls import Input, Results
from serving.engines._network import Network
from serving.engines.torch import load
from serving.errors import ModelUnavailable
from serving.models.catalog import DEFAULT, KNOWN, Entry
from serving.models.loading import load_spec
from serving.models.spec import Dense, ModelSpec
from serving.values import Floats, Output, Prepared, Usage
from tests.checkpoints import NAMES, SENTENCES, build

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from serving.engines._threaded import ThreadedEngine

FLOAT32 = EngineOptions(dtype="float32", threads=1)
BFLOAT16 = EngineOptions(dtype="bfloat16", threads=1)
REAL = next(entry for entry in KNOWN if entry.id == DEFAULT)
TEXTS = (*SENTENCES, "", "word " * 300, "x")

Specs = Callable[[str], ModelSpec]


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> Specs:
    folder = tmp_path_factory.mktemp("checkpoints")

    def spec(name: str) -> ModelSpec:
        if name == DEFAULT:
            return load_spec(REAL)
        path = folder / name
        return load_spec(Entry(name, str(path if path.exists() else build(name, folder))))

    return spec


@asynccontextmanager
async def opened(
    spec: ModelSpec, options: EngineOptions = FLOAT32
) -> AsyncIterator[ThreadedEngine]:
    engine = load(spec, options)
    try:
        yield engine
    finally:
        await engine.close()


def tokens(spec: ModelSpec, texts: Sequence[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(Path(spec.path) / spec.transformer / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(spec.max_tokens)
    texts = [text.lower() if spec.lowercase else text for text in texts]
    return [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def prepared(
    inputs: Sequence[Sequence[int]], output: Output | None = None, skip: int = 0
) -> Prepared:
    ids = np.array([token for one in inputs for token in one], np.int32)
    lengths = np.array([len(one) for one in inputs], np.int32)
    return Prepared(ids, lengths, Usage(), output=output or Output(), skip=skip)


async def embed(
    engine: ThreadedEngine,
    inputs: Sequence[Sequence[int]],
    output: Output | None = None,
    skip: int = 0,
) -> Floats:
    return (await engine.embed(prepared(inputs, output, skip), time.monotonic() + 60)).array


def cosines(a: Floats, b: Floats) -> Floats:
    products: Floats = np.einsum("ij,ij->i", a, b)
    return products / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def reference(spec: ModelSpec) -> SentenceTransformer:
    model = SentenceTransformer(spec.path, device="cpu", local_files_only=True, truncate_dim=None)
    model.truncate_dim = None
    return model


@pytest.mark.parametrize("name", [*NAMES, DEFAULT])
async def test_vectors_agree_with_sentence_transformers(specs: Specs, name: str) -> None:
    spec = specs(name)
    theirs = reference(spec).encode(list(TEXTS), prompt="", batch_size=4, show_progress_bar=False)
    async with opened(spec) as engine:
        ours = await embed(engine, tokens(spec, TEXTS), Output(normalized=False))
    assert ours.shape == theirs.shape
    assert cosines(ours, theirs).min() >= 0.99999
    assert np.allclose(ours, theirs, atol=1e-4)


async def test_a_prompt_that_is_left_out_is_left_out_as_in_sentence_transformers(
    specs: Specs,
) -> None:
    spec = specs("bert_skip_prompt")
    prompt = spec.tasks[0].prompt
    theirs = reference(spec).encode(list(SENTENCES), prompt=prompt, show_progress_bar=False)
    skip = len(tokens(spec, [prompt])[0]) - 1
    async with opened(spec) as engine:
        inputs = tokens(spec, [prompt + text for text in SENTENCES])
        ours = await embed(engine, inputs, skip=skip)
        whole = await embed(engine, inputs)
    assert cosines(ours, theirs).min() >= 0.99999
    assert cosines(ours, whole).min() < 0.999


@pytest.mark.parametrize("name", ["xlmr_prompts", "qwen3_last", "bert_two_modes", DEFAULT])
async def test_batched_equals_single_and_any_order(specs: Specs, name: str) -> None:
    spec = specs(name)
    inputs = tokens(spec, TEXTS)
    async with opened(spec) as engine:
        together = await embed(engine, inputs)
        backwards = (await embed(engine, inputs[::-1]))[::-1]
        alone = np.concatenate([await embed(engine, [one]) for one in inputs])
    assert np.allclose(together, backwards, atol=1e-5)
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", ["bert_mean", "qwen3_last", "xlmr_prompts", DEFAULT])
async def test_bfloat16_agrees_with_float32(specs: Specs, name: str) -> None:
    spec = specs(name)
    inputs = tokens(spec, SENTENCES)
    async with opened(spec) as exact, opened(spec, BFLOAT16) as engine:
        vectors = await embed(engine, inputs)
        assert vectors.dtype == np.float32
        assert cosines(vectors, await embed(exact, inputs)).min() > 0.999


async def test_a_vector_of_zeros_stays_one(specs: Specs, tmp_path: Path) -> None:
    spec = specs("bert_mean")
    linear = {"linear.weight": torch.zeros(8, 96)}
    torch.save(linear, tmp_path / "pytorch_model.bin")
    dense = Dense(str(tmp_path), "pytorch_model.bin", 96, 8, False, "torch.nn.GELU")
    async with opened(replace(spec, heads=(dense,), dimensions=8)) as engine:
        assert (await embed(engine, [[2, 9, 3]])).tolist() == [[0.0] * 8]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths in every batch that the network is given from now on."""
    seen: list[list[int]] = []
    forward = Network.__call__

    def remembered(network: Network, inputs: Sequence[Input]) -> Results:
        seen.append([len(one.ids) for one in inputs])
        return forward(network, inputs)

    monkeypatch.setattr(Network, "__call__", remembered)
    return seen


async def test_a_flood_of_short_texts_and_long_documents_share_the_engine(
    specs: Specs, batches: list[list[int]]
) -> None:
    spec = specs("bert_long")
    async with opened(spec, replace(FLOAT32, batch_tokens=1024)) as engine:
        short = [embed(engine, [[2, *[9] * 10, 3]] * 10) for _ in range(100)]
        documents = [embed(engine, [[2, *[9] * 8000, 3]]) for _ in range(2)]
        await asyncio.gather(*short, *documents)
    first, second = (n for n, batch in enumerate(batches) if 8002 in batch)
    assert first <= 1
    assert second - first - 1 == pytest.approx(8002 / 1024, abs=2)
    assert all(len(batch) == 1 for batch in batches if 8002 in batch)


async def test_a_short_text_waits_for_one_document_at_most(
    specs: Specs, batches: list[list[int]]
) -> None:
    spec = specs("bert_long")
    async with opened(spec, replace(FLOAT32, batch_tokens=1024)) as engine:
        document = [2, *[9] * 8000, 3]
        documents = [asyncio.ensure_future(embed(engine, [document])) for _ in range(4)]
        await asyncio.wait(documents, return_when=asyncio.FIRST_COMPLETED)
        before = len(batches)
        await embed(engine, [[2, 9, 3]])
        assert [3] in batches[: before + 2]
        await asyncio.gather(*documents)


def test_a_checkpoint_without_some_of_its_weights_is_refused(specs: Specs, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    spec = replace(specs("bert_mean"), path=str(tmp_path))
    source = Path(specs("bert_mean").path)
    weights = load_file(source / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    with pytest.raises(ModelUnavailable, match=r"lacks 1 of its weights, encoder\.layer\.1"):
        load(spec, FLOAT32)


def test_an_unknown_architecture_is_refused_in_one_sentence(specs: Specs, tmp_path: Path) -> None:
    spec = replace(specs("bert_mean"), path=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "perceptron"}))
    with pytest.raises(ModelUnavailable, match="perceptron") as raised:
        load(spec, FLOAT32)
    assert "\n" not in raised.value.message


@pytest.mark.parametrize("activation", ["os.system", "torch.nn.functional.relu", "torch.nn.X", ""])
def test_an_activation_is_a_module_of_torch_and_nothing_else(specs: Specs, activation: str) -> None:
    spec = specs("bert_dense")
    heads = (replace(spec.heads[0], activation=activation), *spec.heads[1:])
    with pytest.raises(ModelUnavailable, match=r"torch\.nn"):
        load(replace(spec, heads=heads), FLOAT32)


def test_a_dense_layer_of_another_size_is_refused(specs: Specs) -> None:
    spec = specs("bert_dense")
    with pytest.raises(ModelUnavailable, match="dense layer"):
        load(replace(spec, heads=(replace(spec.heads[0], outputs=41),)), FLOAT32)


_OUT_OF_MEMORY = """
import asyncio, resource, sys, time
import numpy as np
from serving.engines import EngineOptions
from serving.engines.torch import load
from serving.errors import InputTooLarge
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.values import Prepared, Usage

def leave(mebibytes):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + mebibytes * 2**20, resource.RLIM_INFINITY))

async def main():
    options = EngineOptions(dtype="float32", threads=1, batch_tokens=1 << 17)
    engine = load(load_spec(Entry("tiny", sys.argv[1])), options)

    async def embed(rows, length):
        ids, lengths = np.full(rows * length, 9, np.int32), np.full(rows, length, np.int32)
        try:
            vectors = await engine.embed(Prepared(ids, lengths, Usage()), time.monotonic() + 60)
        except InputTooLarge as error:
            return error.status
        return len(vectors.array), bool(np.ptp(vectors.array, axis=0).max() < 1e-5)

    print(await embed(1, 64))
    leave(96)
    print(await embed(256, 256))
    leave(16)  # oneDNN cannot work in 4
    print(await embed(1, 8192), await embed(2, 16))
    await engine.check()

asyncio.run(main())
"""


def test_memory_that_really_runs_out_halves_a_batch_refuses_an_input_and_harms_nothing(
    specs: Specs,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OUT_OF_MEMORY, specs("bert_long").path],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path.cwd()),
            "MALLOC_ARENA_MAX": "1",  # no heap of the thread with room to spare
            "MALLOC_MMAP_THRESHOLD_": "65536",  # what is freed goes back to the system
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(1, True)", "(256, True)", "413 (2, True)"]
    assert "halved" in done.stderr
