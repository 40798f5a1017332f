"""Our own way through BERT gives what transformers gives, and is left where it does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from serving.engines._backbone import Transformer
from serving.engines._backbone import load as by_transformers
from serving.engines._bert import Encoder, Packed, Plain, _bucket, load
from serving.models.catalog import DEFAULT, KNOWN, Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from tests.checkpoints import build

CPU = torch.device("cpu")
REAL = next(entry for entry in KNOWN if entry.id == DEFAULT)
LIKE_BERT = ["bert_mean", "bert_cls", "xlmr_prompts", DEFAULT]


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def spec(name: str, folder: Path) -> ModelSpec:
    return load_spec(REAL if name == DEFAULT else Entry(name, str(build(name, folder))))


def original(name: str, folder: Path) -> tuple[Transformer, Path]:
    found = spec(name, folder)
    return by_transformers(found, torch.float32, CPU), Path(found.path) / found.transformer


def padded(pad: int) -> tuple[Tensor, Tensor]:
    mask = torch.arange(21) < torch.tensor([[21], [1], [13], [20], [2]])
    return torch.randint(pad + 1, 90, (5, 21)).masked_fill(~mask, pad), mask


@pytest.mark.parametrize("name", LIKE_BERT)
def test_token_states_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    model, folder = original(name, tmp_path)
    ids, mask = padded(model.pad)
    encoder = load(folder, torch.float32, CPU)
    assert isinstance(encoder, Encoder)
    assert encoder.pad == model.pad
    assert torch.allclose(encoder(ids, mask)[mask], model(ids, mask)[mask], atol=1e-4)


@pytest.mark.parametrize("name", LIKE_BERT)
def test_a_padding_token_in_a_text_keeps_its_place(tmp_path: Path, name: str) -> None:
    model, folder = original(name, tmp_path)
    ids, mask = padded(model.pad)
    ids[0, 5] = model.pad
    encoder = load(folder, torch.float32, CPU)
    assert encoder is not None
    assert torch.allclose(encoder(ids, mask)[mask], model(ids, mask)[mask], atol=1e-4)


@pytest.mark.parametrize("name", LIKE_BERT)
def test_bfloat16_is_near_float32(tmp_path: Path, name: str) -> None:
    found = spec(name, tmp_path)
    folder = Path(found.path) / found.transformer
    exact, rounded = (load(folder, dtype, CPU) for dtype in (torch.float32, torch.bfloat16))
    assert exact is not None
    assert (rounded is not None) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if rounded is None:
        pytest.skip("this processor has none of the instructions that oneDNN does bfloat16 with")
    ids, mask = padded(exact.pad)
    cosine = torch.cosine_similarity(exact(ids, mask)[mask], rounded(ids, mask)[mask].float())
    assert cosine.min() > 0.99


def test_another_architecture_is_left_to_transformers(tmp_path: Path) -> None:
    assert load(build("qwen3_last", tmp_path), torch.float32, CPU) is None


def _config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def _without(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        weights: dict[str, Any] = safetensors.torch.load_file(file)
        del weights[name]
        safetensors.torch.save_file(weights, file)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _config(auto_map={"AutoModel": "modeling_jina.JinaBertModel"}),
        _config(position_embedding_type="alibi"),
        _config(hidden_act="silu"),
        _config(is_decoder=True),
        _config(quantization_config={"bits": 4}),
        _without("encoder.layer.0.attention.self.query.bias"),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
)
def test_a_checkpoint_that_is_not_quite_bert_is_left_to_transformers(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    folder = build("bert_mean", tmp_path)
    assert load(folder, torch.float32, CPU) is not None
    change(folder)
    assert load(folder, torch.float32, CPU) is None


def test_a_packed_product_that_goes_astray_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build("bert_mean", tmp_path)
    monkeypatch.setattr(Packed, "plus", lambda self, states, residual: residual)
    encoder = load(folder, torch.float32, CPU)
    assert encoder is not None
    assert all(isinstance(layer.out, Plain) for layer in encoder._layers)


def test_the_default_model_is_loaded_without_transformers(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from serving.engines import EngineOptions, open_engine\n"
        "from serving.models.catalog import KNOWN\n"
        "from serving.models.loading import load_spec\n"
        "open_engine('torch', load_spec(KNOWN[0]), EngineOptions())\n"
        "sys.exit('transformers' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_numbers_of_rows_come_in_few_sizes_and_none_is_much_larger() -> None:
    sizes = {tokens: _bucket(tokens) for tokens in range(1, 16385)}
    assert all(tokens <= size <= 1.0625 * tokens for tokens, size in sizes.items())
    assert sizes[32 * 100] == 3200
    assert len(set(sizes.values())) < 1024 / 4
