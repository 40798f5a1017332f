"""Adapters that come and go in vLLM, held against the torch engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from serving.engines import AdapterOptions, open_engine
from serving.errors import ModelUnavailable
from serving.models.spec import Adapter
from tests.adapted import make, write_adapter
from tests.serving.engines.harness import TEXTS, embed
from tests.vllm_engines import OPTIONS, needs_vllm
from tests.vllm_forks import forking

pytestmark = pytest.mark.slow


async def test_vllm_and_torch_give_the_same_vectors_while_adapters_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_vllm()
    monkeypatch.setenv("POLYVEC_CACHE", str(tmp_path / "cache"))
    spec = make("qwen3", tmp_path)
    foreign = _of_embeddings(tmp_path / "foreign")
    names = [one.path for one in spec.adapters]
    loadable = replace(spec, adapters=(), loadable=(*names, foreign.path))
    options = replace(OPTIONS, adapters=AdapterOptions(1, 60_000))
    with forking():
        vllm = await asyncio.to_thread(open_engine, "vllm", loadable, options)
    torch = open_engine("torch", loadable, replace(options, extra={}))
    try:
        for name in (*names, None, names[0]):
            ours, theirs = [await embed(one, TEXTS, adapter=name) for one in (vllm, torch)]
            assert np.allclose(ours.array, theirs.array, rtol=0, atol=1e-4)
        answers = await asyncio.gather(*(embed(vllm, TEXTS, adapter=one) for one in names * 3))
        for at, answer in enumerate(answers):
            assert np.allclose(answer.array, answers[at % len(names)].array, rtol=0, atol=1e-4)
        assert np.abs(answers[0].array - answers[1].array).max() > 1e-3
        with pytest.raises(ModelUnavailable, match="vLLM cannot adapt embed_tokens"):
            await embed(vllm, TEXTS, adapter=foreign.path)
        assert (await embed(vllm, TEXTS, adapter=names[0])).array.shape[0] == len(TEXTS)
    finally:
        await torch.close()
        await vllm.close()


def _of_embeddings(path: Path) -> Adapter:
    """One that changes what vLLM does not let adapters change."""
    return write_adapter(path, [("embed_tokens", nn.Embedding(300, 80))])
