"""safetensors files without a framework, against the library's own reading and writing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from serving.errors import ModelUnavailable
from serving.models.checkpoints import Checkpoint
from serving.models.tensors import Tensor, load, save

MIXED = {
    "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "odd": torch.arange(3, dtype=torch.uint8),
    "whole": torch.arange(4, dtype=torch.int64),
    "single": torch.randn(2, 2),
    "small": torch.tensor(1.5, dtype=torch.float16),
    "none": torch.zeros(0, 4),
}


def test_what_is_loaded_and_saved_is_the_same(tmp_path: Path) -> None:
    save_file(MIXED, tmp_path / "a.safetensors")
    save(tmp_path / "b.safetensors", load(Checkpoint(tmp_path, "m"), "a.safetensors"))
    found = load_file(tmp_path / "b.safetensors")
    assert found.keys() == MIXED.keys()
    for name, tensor in MIXED.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_parts_and_turned_tensors(tmp_path: Path) -> None:
    save_file(MIXED, tmp_path / "a.safetensors")
    half = load(Checkpoint(tmp_path, "m"), "a.safetensors")["half"]
    parts = {"row": half[1], "rows": half[0:1], "turned": half.transposed()}
    save(tmp_path / "b.safetensors", parts)
    found = load_file(tmp_path / "b.safetensors")
    assert torch.equal(found["row"], MIXED["half"][1])
    assert torch.equal(found["rows"], MIXED["half"][:1])
    assert torch.equal(found["turned"], MIXED["half"].T)


def test_a_saved_file_is_one_of_torchs(tmp_path: Path) -> None:
    """transformers refuses a file that does not say so."""
    save(tmp_path / "a.safetensors", {})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        (2).to_bytes(8, "little") + b"[]",
        (9).to_bytes(8, "little") + b'{"a": {}}',
        (60).to_bytes(8, "little")
        + b'{"a":{"dtype":"X1","shape":[1],"data_offsets":[0,1]}}'.ljust(61),
        (60).to_bytes(8, "little")
        + b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}}'.ljust(61),
    ],
)
def test_what_is_no_such_file_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ModelUnavailable, match=r"m has a a.safetensors that is not a safetensors"):
        load(Checkpoint(tmp_path, "m"), "a.safetensors")


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_a_tensors_numbers_are_those_of_torch(tmp_path: Path, kind: torch.dtype) -> None:
    given = torch.randn(3, 5).to(kind)
    save_file({"a": given}, tmp_path / "a.safetensors")
    found = load(Checkpoint(tmp_path, "m"), "a.safetensors")["a"]
    assert found.floats().tolist() == given.float().tolist()
    assert found[1].floats().tolist() == given[1].float().tolist()
    assert Tensor.of(found.floats()).floats().tolist() == given.float().tolist()


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="I64 is no type that weights have"):
        load(Checkpoint(tmp_path, "m"), "a.safetensors")["a"].floats()
