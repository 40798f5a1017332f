"""What the machine can do: which device, which number type, and what running out of memory is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from serving.engines import EngineOptions

__all__ = ["Processor", "chosen_device", "chosen_dtype", "is_out_of_memory", "processor"]

_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
_AMX, _AVX512, _AMD = "amx_bf16", "avx512_bf16", "AuthenticAMD"


@dataclass(frozen=True, slots=True)
class Processor:
    """Who made it, and the names of what it can do, as Linux has them; empty where it is silent."""

    vendor: str = ""
    flags: frozenset[str] = frozenset()

    @property
    def quicker_in_bfloat16(self) -> bool:
        """With AMX, and with AVX512-BF16 on an EPYC, where MiniLM in transformers runs at 1.4 to
        2.1 of float32's rate. Not with that alone on a Xeon: 0.6 on a Sapphire Rapids.
        """
        return _AMX in self.flags or (_AVX512 in self.flags and self.vendor == _AMD)


def chosen_device(options: EngineOptions) -> torch.device:
    """The device asked for, else a GPU where there is one."""
    return torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def chosen_dtype(options: EngineOptions, device: torch.device) -> torch.dtype:
    """The number type asked for, else bfloat16 where it is quicker: `Processor`, and on CUDA.

    Not by trial, because replicas of one model have to give the same vectors.
    """
    if options.dtype != "auto":
        return torch.bfloat16 if options.dtype == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = processor().quicker_in_bfloat16
    return torch.bfloat16 if fast else torch.float32


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """The first one of this machine."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return Processor()
    pairs = (line.partition(":") for line in reversed(lines))  # so that the first one's stay
    said = {name.strip(): value.strip() for name, _, value in pairs}
    return Processor(said.get("vendor_id", ""), frozenset(said.get("flags", "").split()))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory, of the device or the host, did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(w in str(error) for w in _MEMORY_WORDS)
