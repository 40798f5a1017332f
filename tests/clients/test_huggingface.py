"""huggingface_hub's InferenceClient and mteb, unchanged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.clients.conftest import MODEL, SEEING, TEXTS


def test_inference_client(
    url: str, right: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # a loopback is no hub
    client = hub.InferenceClient(model=url)
    right(client.feature_extraction(TEXTS[:3], normalize=True, truncate=True), TEXTS[:3])
    right(client.feature_extraction(TEXTS[0]), TEXTS[:1])
    with pytest.raises(hub.errors.HfHubHTTPError, match="has no task"):
        client.feature_extraction(TEXTS[0], prompt_name="x")


def test_mteb(url: str, right: Callable[..., None]) -> None:
    mteb = pytest.importorskip("mteb")
    wrappers = pytest.importorskip("mteb.models.openai_wrappers")
    data = pytest.importorskip("torch.utils.data")
    task = mteb.get_task("STS12").metadata
    about = {"task_metadata": task, "hf_split": "test", "hf_subset": "default"}

    def loader(texts: list[str]) -> object:
        return data.DataLoader([{"text": text} for text in texts], batch_size=2)

    encoder = wrappers.OpenAIAPIEncodeWrapper(url, MODEL)
    right(encoder.encode(loader(TEXTS[:3]), show_progress_bar=False, **about), TEXTS[:3])
    reranker = wrappers.OpenAIAPIRerankWrapper(url, MODEL)
    queries = ["Where is the cat?"] * 3
    scores = reranker.predict(loader(queries), loader(TEXTS[:3]), show_progress_bar=False, **about)
    assert np.argmax(scores) == 0
    tokens = wrappers.OpenAIAPITokenEmbedWrapper(url, SEEING)
    found = tokens._encode_texts(["ab", "c"])
    assert [one.shape for one in found] == [(4, 3), (3, 3)]
