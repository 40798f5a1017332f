"""The short way through BERT gives what the long one gives, and is left where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from serving.engines import _backbone
from serving.engines._backbone import fitted, pad_token, read
from serving.engines._bert import Encoder, Pack, Packed, Plain, _bucket
from serving.models.catalog import DEFAULT, KNOWN, Entry
from serving.models.loading import load_spec
from tests.checkpoints import build

CPU = torch.device("cpu")
REAL = next(entry for entry in KNOWN if entry.id == DEFAULT)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def model(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    entry = REAL if name == DEFAULT else Entry(name, str(build(name, folder)))
    return read(load_spec(entry), dtype)


def padded(pad: int) -> tuple[Tensor, Tensor]:
    mask = torch.arange(21) < torch.tensor([[21], [1], [13], [20], [2]])
    return torch.randint(pad + 1, 90, (5, 21)).masked_fill(~mask, pad), mask


@pytest.mark.parametrize("pack", [Packed, Plain])
@pytest.mark.parametrize("name", ["bert_mean", "xlmr_prompts", DEFAULT])
def test_token_states_are_those_of_transformers(tmp_path: Path, name: str, pack: Pack) -> None:
    original = model(name, tmp_path)
    ids, mask = padded(pad_token(original.config))
    expected = original(input_ids=ids, attention_mask=mask.long())[0][mask]
    assert torch.allclose(Encoder(original, pack)(ids, mask)[mask], expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["bert_mean", "xlmr_prompts", DEFAULT])
def test_a_checkpoint_like_bert_goes_the_short_way(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    assert isinstance(fitted(model(name, tmp_path, dtype), CPU), Encoder)


def test_another_architecture_goes_the_way_of_transformers(tmp_path: Path) -> None:
    assert not isinstance(fitted(model("qwen3_last", tmp_path), CPU), Encoder)


def test_a_short_way_that_goes_elsewhere_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Astray(Encoder):
        def __call__(self, ids: Tensor, mask: Tensor | None) -> Tensor:
            return super().__call__(ids, None)  # forgets the padding

    monkeypatch.setattr(_backbone, "Encoder", Astray)
    original = model("bert_mean", tmp_path)
    backbone = fitted(original, CPU)
    ids, mask = padded(0)
    expected = original(input_ids=ids, attention_mask=mask.long())[0][mask]
    assert not isinstance(backbone, Encoder)
    assert torch.equal(backbone(ids, mask)[mask], expected)


def test_numbers_of_rows_come_in_few_sizes_and_none_is_much_larger() -> None:
    sizes = {tokens: _bucket(tokens) for tokens in range(1, 16385)}
    assert all(tokens <= size <= 1.0625 * tokens for tokens, size in sizes.items())
    assert sizes[32 * 100] == 3200
    assert len(set(sizes.values())) < 1024 / 4
