"""Pooling inside vLLM against returning every token's state and pooling here: time, bytes, memory.

    python -m loadtests.pooling [--longest TOKENS] [--rounds N]

Late chunks of one document, eight spans, by two engines that take turns in one run: ours, whose
pooler keeps a running sum a span, and vLLM's own `token_embed`, whose answer is the document's
states, pooled with numpy. Random weights, one wide layer: what differs is how answers travel.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import psutil

from loadtests.shapes import write_qwen3
from serving.engines import EngineOptions, open_engine
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.values import Floats, Ints, Prepared, Usage
from serving.vectors.matryoshka import unit

__all__ = ["Peak", "main", "spans"]

_SPANS = 8
_DEADLINE_S = 3600.0
_LENGTHS = (512, 2048, 8192, 32768)


class Peak:
    """The most memory that this process and its children have held in a `with` block, in bytes.

    `grown` is how much more than on entering.
    """

    def __init__(self) -> None:
        self.grown = 0
        self._over = threading.Event()

    def __enter__(self) -> Peak:
        self._start = _resident()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.grown = max(self.grown, _resident() - self._start)


def spans(tokens: int) -> Ints:
    """`[8, 4]` pieces of (vector, input, start, end): eight chunks of one document."""
    ends = np.linspace(0, tokens, _SPANS + 1, dtype=np.int32)
    rows = [(i, 0, ends[i], ends[i + 1]) for i in range(_SPANS)]
    return np.array(rows, np.int32)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: prints a table."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.pooling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--longest", type=int, default=_LENGTHS[-1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default="/tmp/polyvec-shapes")
    args = parser.parse_args(arguments)
    folder = Path(args.folder) / "qwen3-wide"
    if not (folder / "config.json").exists():
        write_qwen3(folder, hidden=1024, layers=1, positions=_LENGTHS[-1])
    spec = load_spec(Entry("measured", str(folder), family="jina_v5_text"))
    asyncio.run(_run(spec, [one for one in _LENGTHS if one <= args.longest], args.rounds))
    return 0


def _resident() -> int:
    process = psutil.Process()
    every = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in every if one.is_running())


async def _run(spec: ModelSpec, lengths: Sequence[int], rounds: int) -> None:
    ours = open_engine("vllm", spec, EngineOptions(dtype="float32"))
    theirs = _stock(spec)

    async def inside(ids: Ints) -> tuple[Floats, int]:
        count = np.array([len(ids)], np.int32)
        job = Prepared(ids, count, Usage(len(ids)), spans=spans(len(ids)))
        array = (await ours.embed(job, time.monotonic() + _DEADLINE_S)).array
        return array, array.nbytes

    async def outside(ids: Ints) -> tuple[Floats, int]:
        states = await _states(theirs, ids)
        means = [states[start:end].mean(axis=0) for _, _, start, end in spans(len(ids))]
        return unit(np.stack(means)), states.nbytes

    print(
        f"{'tokens':>7}  {'pooled':8}{'ms':>9}  {'of inside':>9}  {'MiB moved':>9}  {'MiB peak':>8}"
    )
    try:
        for tokens in lengths:
            await _compare({"inside": inside, "outside": outside}, tokens, rounds)
    finally:
        await ours.close()
        theirs.shutdown()


_Way = Callable[[Ints], Awaitable[tuple[Floats, int]]]


async def _compare(ways: dict[str, _Way], tokens: int, rounds: int) -> None:
    took: dict[str, list[float]] = {name: [] for name in ways}
    moved, peak, answers = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0), {}
    for turn in range(rounds):
        ids = np.random.default_rng(turn).integers(5, 250, tokens, dtype=np.int32)
        for name in sorted(ways, reverse=bool(turn % 2)):
            with Peak() as grown:
                began = time.perf_counter()
                answers[name], moved[name] = await ways[name](ids)
                took[name].append(time.perf_counter() - began)
            peak[name] = max(peak[name], grown.grown)
    apart = float(np.abs(answers["inside"] - answers["outside"]).max())
    least = statistics.median(took["inside"])
    for name, times in took.items():
        ms = 1e3 * statistics.median(times)
        line = f"{tokens:>7}  {name:8}{ms:>9.1f}  {ms / 1e3 / least:>9.2f}"
        print(f"{line}  {moved[name] / 2**20:>9.3f}  {peak[name] / 2**20:>8.0f}", flush=True)
    print(f"{'':9}the vectors differ by at most {apart:.1e}")


def _stock(spec: ModelSpec) -> Any:  # vLLM's types, which only GPU and CPU extras have
    # What our engine does for its own processes while it starts them.
    from serving.engines._vllm import site

    os.environ["PYTHONPATH"] = str(Path(site.__file__).parent)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; by default, a share of all memory
    from vllm.config import PoolerConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    return AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=spec.path,
            runner="pooling",
            dtype="float32",
            max_model_len=spec.max_tokens,
            max_num_batched_tokens=4096,
            enforce_eager=True,
            skip_tokenizer_init=True,
            hf_overrides={"architectures": ["Qwen3ForCausalLM"]},
            pooler_config=PoolerConfig(task="token_embed"),
        )
    )


async def _states(engine: Any, ids: Ints) -> Floats:
    """`[tokens, hidden]`: what vLLM's own pooler gives back."""
    from vllm import PoolingParams

    params = PoolingParams(task="token_embed", use_activation=False)
    prompt = {"prompt_token_ids": ids.tolist()}
    [answer] = [one async for one in engine.encode(prompt, params, uuid4().hex)]
    states: Floats = answer.outputs.data.float().numpy()
    return states


if __name__ == "__main__":
    raise SystemExit(main())
