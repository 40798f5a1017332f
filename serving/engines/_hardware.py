"""What the machine can do: which device, which number type, and what running out of memory is."""

from __future__ import annotations

from pathlib import Path

import torch

from serving.engines import EngineOptions

__all__ = ["chosen_device", "chosen_dtype", "cpu_flags", "is_out_of_memory"]

_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
_FAST_BFLOAT16 = "amx_bf16"


def chosen_device(options: EngineOptions) -> torch.device:
    """The device asked for, else a GPU where there is one."""
    return torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def chosen_dtype(options: EngineOptions, device: torch.device) -> torch.dtype:
    """The number type asked for, else bfloat16 where it is quicker: on CUDA, and with AMX.

    Not with AVX512-BF16 alone: on a Xeon that has it, MiniLM ran at 0.6 of its float32 rate. And
    not by trial, because replicas of one model have to give the same vectors.
    """
    if options.dtype != "auto":
        return torch.bfloat16 if options.dtype == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = _FAST_BFLOAT16 in cpu_flags()
    return torch.bfloat16 if fast else torch.float32


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
