"""Which device and which number type are chosen, by a rule that is tried and not by names alone."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
import torch

from serving.engines import EngineOptions
from serving.engines import _hardware as hardware
from serving.engines._hardware import chosen_device, chosen_dtype, cpu_flags, product_s, quicker

CPU = torch.device("cpu")
AUTO = EngineOptions(threads=1)


@pytest.mark.parametrize(
    ("float32_s", "bfloat16_s", "dtype"),
    [
        (1.0, 0.25, torch.bfloat16),  # with AMX
        (1.0, 0.99, torch.float32),  # no more than timing scatters
        (1.0, 1.7, torch.float32),  # with avx512_bf16 alone
    ],
)
def test_bfloat16_is_chosen_only_where_it_is_clearly_quicker(
    float32_s: float, bfloat16_s: float, dtype: torch.dtype
) -> None:
    assert quicker(float32_s, bfloat16_s) == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_a_processor_with_bfloat16_is_tried(
    monkeypatch: pytest.MonkeyPatch, flag: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", flag}))
    monkeypatch.setattr(hardware, "product_s", lambda tried: 1.0 if tried == dtype else 2.0)
    assert chosen_dtype(AUTO, CPU) == dtype


def test_a_processor_without_bfloat16_is_not_even_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    flags = "fpu avx2 avx512f avx512_vnni"
    cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: X\nflags\t\t: {flags}\n\nprocessor\t: 1\n")
    monkeypatch.setattr(hardware, "cpu_flags", lambda: cpu_flags(cpuinfo))
    monkeypatch.delattr(hardware, "product_s")
    assert cpu_flags(cpuinfo) == {"fpu", "avx2", "avx512f", "avx512_vnni"}
    assert chosen_dtype(AUTO, CPU) == torch.float32


def test_the_type_asked_for_is_taken_untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(hardware, "product_s")
    assert chosen_dtype(EngineOptions(dtype="float32"), CPU) == torch.float32
    assert chosen_dtype(EngineOptions(dtype="bfloat16"), CPU) == torch.bfloat16


def test_a_trial_is_the_median_of_warm_products() -> None:
    ticks = count()
    seconds = [100.0, 100.0, 3.0, 1.0, 9.0, 2.0, 4.0, 8.0, 5.0]  # the first two are cold
    times = [0.0]
    for one in seconds:
        times += [times[-1], times[-1] + one]
    clock = iter(times[1:])
    assert product_s(torch.float32, lambda: (next(ticks), next(clock))[1]) == 4.0
    assert next(ticks) == 2 * len(seconds)


def test_without_a_file_of_flags_there_are_none(tmp_path: Path) -> None:
    assert cpu_flags(tmp_path / "cpuinfo") == frozenset()


def test_the_device_asked_for_is_taken() -> None:
    assert chosen_device(EngineOptions(device="meta")) == torch.device("meta")
