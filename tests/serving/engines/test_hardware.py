"""Which device and which number type are chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serving.engines import EngineOptions
from serving.engines import _hardware as hardware
from serving.engines._hardware import Processor, chosen_device, chosen_dtype, processor

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("vendor", "flags", "dtype"),
    [
        ("GenuineIntel", {"avx2", "avx512_bf16", "amx_bf16", "amx_tile"}, torch.bfloat16),
        ("GenuineIntel", {"avx2", "avx512_bf16"}, torch.float32),  # slower with them than without
        ("AuthenticAMD", {"avx2", "avx512_bf16"}, torch.bfloat16),
        ("AuthenticAMD", {"avx2"}, torch.float32),
    ],
)
def test_a_processor_runs_bfloat16_where_it_is_quicker(
    monkeypatch: pytest.MonkeyPatch, vendor: str, flags: set[str], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(hardware, "processor", lambda: Processor(vendor, frozenset(flags)))
    assert chosen_dtype(EngineOptions(), CPU) == dtype


def test_the_first_processor_is_asked(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    first = "processor\t: 0\nvendor_id\t: X\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
    cpuinfo.write_text(f"{first}\nprocessor\t: 1\nvendor_id\t: Y\nflags\t\t: fpu\n")
    flags = frozenset({"fpu", "avx2", "avx512f", "avx512_vnni"})
    assert processor(cpuinfo) == Processor("X", flags)


def test_the_type_asked_for_is_taken() -> None:
    assert chosen_dtype(EngineOptions(dtype="float32"), CPU) == torch.float32
    assert chosen_dtype(EngineOptions(dtype="bfloat16"), CPU) == torch.bfloat16


def test_without_a_file_of_flags_there_are_none(tmp_path: Path) -> None:
    assert processor(tmp_path / "cpuinfo") == Processor()


def test_the_device_asked_for_is_taken() -> None:
    assert chosen_device(EngineOptions(device="meta")) == torch.device("meta")
