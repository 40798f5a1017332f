"""A 20-megapixel JPEG from bytes to the pixels that a model sees, against plain Pillow.

    python -m loadtests.images [--rounds N] [--checkpoint DIR]

Three ways take turns in one run, in one thread: Pillow by hand (open, turn, convert, resize), ours,
and ours with `media.fast`. Printed are medians of processor time, their ratio to Pillow's, the
difference in pixels, and, where a checkpoint of a model with images is given, how far `fast` turns
its vectors.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from serving.media import MediaOptions
from serving.media.pictures import decode
from serving.media.resizing import Sizing

__all__ = ["jpeg", "main", "plain"]

_FACTOR = 28  # patch 14, merged 2 x 2: Qwen2.5-VL
_BOUNDS = (602_112, 1_003_520, 12_845_056, 20_000_000)
_SIDES = (4000, 5000)

_Pixels = npt.NDArray[np.uint8]


def jpeg(height: int, width: int, seed: int = 0) -> bytes:
    """A picture with both smooth areas and fine detail, as a camera's file would have."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = draw.normal(0, 6, (height, width, 1)).astype(np.int16)
    noisy = np.clip(np.asarray(picture, np.int16) + grain, 0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(noisy).save(data, "JPEG", quality=85)
    return data.getvalue()


def plain(data: bytes, size: tuple[int, int]) -> _Pixels:
    """What anyone would write: `[height, width, 3]`."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: prints a table."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.images", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--checkpoint", type=Path, help="measures the turn of its vectors too")
    args = parser.parse_args(arguments)
    data = jpeg(*_SIDES)
    print(f"a JPEG of {_SIDES[1]} x {_SIDES[0]} pixels, {len(data) / 2**20:.1f} MiB")
    print(f"{'max_pixels':>11}  {'seen at':>11}  {'':8}{'CPU-ms':>8}  {'of plain':>8}  difference")
    for most in _BOUNDS:
        _compare(data, Sizing(_FACTOR, 4 * _FACTOR**2, most), args.rounds)
    if args.checkpoint is not None:
        asyncio.run(_drift(args.checkpoint, data))
    return 0


def _compare(data: bytes, sizing: Sizing, rounds: int) -> None:
    exact = MediaOptions(image_bytes=1 << 30)
    fast = replace(exact, fast=True)
    size = sizing.fit(*_SIDES, "input")
    ways: dict[str, Callable[[], _Pixels]] = {
        "plain": lambda: plain(data, size),
        "ours": lambda: decode(data, sizing, exact, "input"),
        "fast": lambda: decode(data, sizing, fast, "input"),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    pixels = {name: way() for name, way in ways.items()}
    for turn in range(rounds):
        for name in sorted(ways, reverse=bool(turn % 2)):
            began = time.process_time()
            ways[name]()
            spent[name].append(1e3 * (time.process_time() - began))
    whole = statistics.median(spent["plain"])
    for name, times in spent.items():
        took = statistics.median(times)
        seen = f"{size[1]} x {size[0]}"
        apart = _apart(pixels["plain"], pixels[name])
        line = f"{sizing.max_pixels:>11}  {seen:>11}  {name:8}{took:>8.1f}  {took / whole:>8.2f}"
        print(f"{line}  {apart}", flush=True)


def _apart(one: _Pixels, other: _Pixels) -> str:
    difference = np.abs(one.astype(np.int16) - other)
    return f"mean {difference.mean():.2f}, at most {difference.max()} of 255"


async def _drift(checkpoint: Path, data: bytes) -> None:
    """The cosine between a model's vectors of the exact and of the fast pixels."""
    from serving.engines import EngineOptions, open_engine
    from serving.models.catalog import Entry
    from serving.models.loading import load_spec
    from serving.operators import declare
    from serving.preparing import open_preparer
    from serving.values import Image as Item
    from serving.values import Job

    declare()
    spec = load_spec(Entry("measured", str(checkpoint)))
    engine = open_engine("torch", spec, EngineOptions(dtype="float32"))
    job = Job(spec.id, (Item(base64.b64encode(data).decode()),), spec.default_task)
    vectors = []
    for fast in (False, True):
        preparer = open_preparer(spec, MediaOptions(image_bytes=1 << 30, fast=fast))
        answer = await engine.embed(await preparer.prepare(job), time.monotonic() + 600)
        vectors.append(answer.array[0])
    print(f"cosine of the vectors, exact and fast: {float(vectors[0] @ vectors[1]):.6f}")
    await engine.close()


if __name__ == "__main__":
    raise SystemExit(main())
