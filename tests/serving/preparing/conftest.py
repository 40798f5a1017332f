"""A tiny checkpoint that sees images, and transformers' own tokenizer of it."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from serving.models.catalog import Entry
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec
from tests.upstream import build


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return load_spec(
        Entry("tiny", str(build("jina_v4", tmp_path_factory.mktemp("v4")))), weights=False
    )


@pytest.fixture(scope="module")
def theirs(spec: ModelSpec) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(spec.path)
