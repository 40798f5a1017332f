"""How much of a GPU the engine uses: tokens a second and the share of the card's bfloat16 rate.

    python -m loadtests.gpu [--shape v4|tiny] [--engine vllm] [--folder DIR] [--rounds N]

Writes a checkpoint of jina-embeddings-v4's real shape (3.8 billion random numbers, the upstream
layout with its three adapters in one file) unless DIR has one, reads it as any other, and embeds
batches of texts and of images with the three adapters mixed. The card's rate is measured in the
same run, by a product of two square matrices. Needs a GPU for `v4`; `tiny` runs anywhere and shows
only that it works.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtests import flops
from loadtests.shapes import SHAPES, write
from serving.engines import Engine, EngineOptions, open_engine
from serving.media import MediaOptions
from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from serving.preparing import open_preparer
from serving.values import Image, Job, Prepared, Usage

__all__ = ["Batch", "Result", "main"]

_MATRIX = {"cuda": 8192, "cpu": 1024}
_DEADLINE_S = 600.0
_SEED = 7


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs embedded at once: texts of `tokens` tokens, or images of `side` x `side` pixels."""

    name: str
    inputs: int
    tokens: int = 0
    side: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """One batch: the median of its rounds. `operations` are those of all its inputs."""

    name: str
    tokens: int
    seconds: float
    operations: int

    def line(self, rate: float) -> str:
        """As a row of the table; `rate` is the device's own, in operations a second."""
        done = self.operations / self.seconds
        speed = f"{self.tokens / self.seconds:>10,.0f}  {done / 1e12:>8.2f}  {done / rate:>7.1%}"
        return f"{self.name:<28}{self.tokens:>8}  {1e3 * self.seconds:>9.1f}  {speed}"


BATCHES = {
    "v4": (
        Batch("8 x 128 tokens", 8, 128),
        Batch("64 x 128 tokens", 64, 128),
        Batch("8 x 512 tokens", 8, 512),
        Batch("32 x 512 tokens", 32, 512),
        Batch("4 x 8192 tokens", 4, 8192),
        Batch("1 x 32000 tokens", 1, 32000),
        Batch("8 images, 0.6 megapixels", 8, side=776),
        Batch("2 images, 12 megapixels", 2, side=3464),
    ),
    "tiny": (Batch("4 x 16 tokens", 4, 16), Batch("2 images", 2, side=112)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: prints a table, and answers with an exit code."""
    args = _parser().parse_args(arguments)
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if args.shape == "v4" and device == "cpu":
        print("no GPU here; --shape tiny shows that the code runs", file=sys.stderr)
        return 1
    rate = _matrix_rate(device)
    folder = Path(args.folder)
    if not (folder / "config.json").exists():
        print(f"writing a checkpoint of the shape {args.shape} to {folder} ...", flush=True)
        write(SHAPES[args.shape], folder)
    pixels = max(batch.side for batch in BATCHES[args.shape]) ** 2
    entry = Entry("v4", str(folder), family="jina_v4", max_pixels=pixels)
    spec = load_spec(entry)
    started = time.perf_counter()
    engine = open_engine(args.engine, spec, EngineOptions(dtype="bfloat16", extra=_extra(args)))
    print(f"engine {args.engine} ready in {time.perf_counter() - started:.0f} s")
    print(f"{device}: {rate / 1e12:.1f} TFLOP/s by a bfloat16 product of square matrices")
    print(f"{'':<28}{'tokens':>8}  {'ms':>9}  {'tokens/s':>10}  {'TFLOP/s':>8}  {'of rate':>7}")
    asyncio.run(_run(engine, spec, BATCHES[args.shape], args.rounds, rate))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtests.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--shape", choices=sorted(SHAPES), default="v4")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--folder", default="/tmp/polyvec-bench-gpu", help="of the checkpoint")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--batch-tokens", type=int, default=None, help="vLLM's max_num_batched_tokens"
    )
    return parser


def _extra(args: argparse.Namespace) -> dict[str, object]:
    return {} if args.batch_tokens is None else {"max_num_batched_tokens": args.batch_tokens}


def _matrix_rate(device: str) -> float:
    """Operations a second of a square bfloat16 product: the best of ten, warm."""
    import torch

    size = _MATRIX[device]
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(13):  # the first three warm it up
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    del a, b
    if device == "cuda":
        torch.cuda.empty_cache()
    return 2 * size**3 / best


async def _run(
    engine: Engine, spec: ModelSpec, batches: Sequence[Batch], rounds: int, rate: float
) -> None:
    rank = max(adapter.rank for adapter in spec.adapters)
    language, sight = flops.read(Path(spec.path) / spec.transformer / "config.json", rank)
    assert sight is not None
    assert spec.vision is not None
    try:
        for batch in batches:
            times = []
            for turn in range(rounds + 1):  # the first warms the shapes up
                jobs = await _jobs(spec, batch, turn)
                began = time.perf_counter()
                deadline = time.monotonic() + _DEADLINE_S
                await asyncio.gather(*(engine.embed(job, deadline) for job in jobs))
                times.append(time.perf_counter() - began)
            lengths = [int(length) for job in jobs for length in job.lengths]
            patches = [one.tokens * spec.vision.merge**2 for job in jobs for one in job.pixels]
            operations = language.operations(lengths) + sum(map(sight.operations, patches))
            seconds = statistics.median(times[1:])
            print(Result(batch.name, sum(lengths), seconds, operations).line(rate), flush=True)
    finally:
        await engine.close()


async def _jobs(spec: ModelSpec, batch: Batch, turn: int) -> list[Prepared]:
    """One job an input, with the adapters in turn; no two inputs are alike."""
    tasks = [task for task in spec.tasks if task.adapter]
    chosen = [tasks[i % len(tasks)] for i in range(batch.inputs)]
    draw = np.random.default_rng((_SEED, turn, batch.inputs, batch.tokens))
    if batch.side:
        preparer = open_preparer(spec, MediaOptions(image_bytes=1 << 30))
        images = [_image(draw, batch.side) for _ in chosen]
        return [
            await preparer.prepare(Job(spec.id, (image,), task.name))
            for image, task in zip(images, chosen, strict=True)
        ]
    texts = draw.integers(5, 250, (batch.inputs, batch.tokens), dtype=np.int32)
    return [
        Prepared(
            ids=ids,
            lengths=np.array([batch.tokens], np.int32),
            usage=Usage(batch.tokens),
            task=task.name,
            adapter=task.adapter,
        )
        for ids, task in zip(texts, chosen, strict=True)
    ]


def _image(draw: np.random.Generator, side: int) -> Image:
    """A picture of smooth noise, as base64 of a JPEG."""
    from PIL import Image as Pictures

    coarse = draw.integers(0, 256, (side // 16 + 1, side // 16 + 1, 3), dtype=np.uint8)
    picture = Pictures.fromarray(coarse).resize((side, side), Pictures.Resampling.BICUBIC)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=90)
    return Image(base64.b64encode(data.getvalue()).decode())


if __name__ == "__main__":
    raise SystemExit(main())
