"""What the machine can do: which device, which number type, and what running out of memory is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch.nn import functional

from serving.engines import EngineOptions

__all__ = [
    "chosen_device",
    "chosen_dtype",
    "cpu_flags",
    "is_out_of_memory",
    "product_s",
    "quicker",
]

_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
_BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
_PRODUCT = (128, 512, 1024)  # a batch of short texts through one layer of a small model
_TRIES = 7
_GAIN = 1.2


def chosen_device(options: EngineOptions) -> torch.device:
    """The device asked for, else a GPU where there is one."""
    return torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def chosen_dtype(options: EngineOptions, device: torch.device) -> torch.dtype:
    """The number type asked for, else bfloat16 where the hardware multiplies it quicker.

    A processor that has instructions for it may be slower with them: it is tried, for some 20 ms.
    """
    if options.dtype != "auto":
        return torch.bfloat16 if options.dtype == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    if _BFLOAT16_FLAGS.isdisjoint(cpu_flags()):
        return torch.float32
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return quicker(product_s(torch.float32), product_s(torch.bfloat16))


def quicker(float32_s: float, bfloat16_s: float) -> torch.dtype:
    """The number type to run in, from the seconds that one product takes in either.

    bfloat16 only where it gains more than what timing scatters: it rounds.
    """
    return torch.bfloat16 if bfloat16_s * _GAIN < float32_s else torch.float32


def product_s(dtype: torch.dtype, clock: Callable[[], float] = perf_counter) -> float:
    """The median of the seconds that a matrix product of that type takes on the processor, warm."""
    rows, inputs, outputs = _PRODUCT
    states, weight = torch.ones(rows, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype)
    seconds = []
    with torch.inference_mode():
        for _ in range(2 + _TRIES):
            began = clock()
            functional.linear(states, weight)
            seconds.append(clock() - began)
    return median(seconds[2:])


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The feature flags of the first processor; none where the system does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), "")
    return frozenset(flags.partition(":")[2].split())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory, of the device or the host, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error) for w in _MEMORY_WORDS)
