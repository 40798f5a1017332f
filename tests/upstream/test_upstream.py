"""The tiny checkpoints are the same in every process, and nothing like the real ones in size."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer

from tests import checkpoints
from tests.upstream import NAMES, RERANKERS, build

BUILD = """
import sys
from pathlib import Path
from serving.operators import declare
declare()
from tests import checkpoints, upstream
for name in checkpoints.NAMES:
    checkpoints.build(name, Path(sys.argv[1]))
for name in (*upstream.NAMES, *upstream.RERANKERS):
    upstream.build(name, Path(sys.argv[1]))
"""
REAL = {"<|image_pad|>": 151655, "<|endoftext|>": 151643, "<|end_of_text|>": 128001}


def digests(folder: Path) -> dict[str, str]:
    """Of every file but those of torch.save, which carry a number of their own."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".bin", ".pt")
    }


def test_another_process_builds_the_same(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.getcwd()}
    ran = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path / "there")], env=environment, check=False
    )
    assert ran.returncode == 0
    for name in checkpoints.NAMES:
        checkpoints.build(name, tmp_path / "here")
    for name in (*NAMES, *RERANKERS):
        build(name, tmp_path / "here")
    assert digests(tmp_path / "here") == digests(tmp_path / "there")


@pytest.mark.parametrize("name", [*NAMES, *RERANKERS])
def test_special_tokens_have_other_ids_than_the_real_ones(tmp_path: Path, name: str) -> None:
    tokenizer = Tokenizer.from_file(str(build(name, tmp_path) / "tokenizer.json"))
    for word, real in REAL.items():
        assert tokenizer.token_to_id(word) != real
    assert tokenizer.get_vocab_size() < 500


def test_the_names_of_v4s_adapters_are_those_of_upstream(tmp_path: Path) -> None:
    path = build("jina_v4", tmp_path)
    keys = load_file(path / "adapters" / "adapter_model.safetensors")
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.code.weight" in keys
    assert "base_model.model.multi_vector_projector.lora_B.text-matching.weight" in keys
    assert not any("visual" in key for key in keys)
    index = json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
    assert {name.split(".")[0] for name in index} == {"model", "visual", "multi_vector_projector"}


def test_the_names_of_v3s_weights_are_those_of_upstream(tmp_path: Path) -> None:
    found = load_file(build("jina_v3", tmp_path) / "model.safetensors")
    stem = "roberta.encoder.layers.0.mixer.Wqkv"
    factors = found[f"{stem}.parametrizations.weight.0.lora_A"]
    assert tuple(factors.shape) == (5, 3, 64)
    words = "roberta.embeddings.word_embeddings.parametrizations.weight"
    rows = len(found[f"{words}.original"])
    assert tuple(found[f"{words}.0.lora_A"].shape) == (5, rows, 3)
    assert f"{stem}.bias" in found
