"""Which device and which number type are chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from serving.engines import EngineOptions
from serving.engines import _hardware as hardware
from serving.engines._hardware import chosen_device, chosen_dtype, cpu_flags

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ({"avx2", "avx512_bf16", "amx_bf16", "amx_tile"}, torch.bfloat16),
        ({"avx2", "avx512_bf16"}, torch.float32),  # has the instructions, and is slower with them
        ({"avx2"}, torch.float32),
    ],
)
def test_a_processor_runs_bfloat16_where_it_has_amx(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    assert chosen_dtype(EngineOptions(), CPU) == dtype


def test_the_flags_are_those_of_the_first_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    flags = "fpu avx2 avx512f avx512_vnni"
    cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: X\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    assert cpu_flags(cpuinfo) == {"fpu", "avx2", "avx512f", "avx512_vnni"}


def test_the_type_asked_for_is_taken() -> None:
    assert chosen_dtype(EngineOptions(dtype="float32"), CPU) == torch.float32
    assert chosen_dtype(EngineOptions(dtype="bfloat16"), CPU) == torch.bfloat16


def test_without_a_file_of_flags_there_are_none(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "cpuinfo") == frozenset()


def test_the_device_asked_for_is_taken() -> None:
    assert chosen_device(EngineOptions(device="meta")) == torch.device("meta")
