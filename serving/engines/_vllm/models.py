"""vLLM's backbones with our pooler. vLLM finds these classes by name and builds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.models.bert import BertEmbeddingModel
from vllm.model_executor.models.interfaces import SupportsLoRA
from vllm.model_executor.models.llama import LlamaModel
from vllm.model_executor.models.modernbert import ModernBertModel
from vllm.model_executor.models.qwen2 import Qwen2Model
from vllm.model_executor.models.qwen2_5_vl import (
    Qwen2_5_VLDummyInputsBuilder,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLMultiModalProcessor,
    Qwen2_5_VLProcessingInfo,
)
from vllm.model_executor.models.qwen2_vl import (
    Qwen2VLDummyInputsBuilder,
    Qwen2VLForConditionalGeneration,
    Qwen2VLMultiModalProcessor,
    Qwen2VLProcessingInfo,
)
from vllm.model_executor.models.qwen3 import Qwen3Model
from vllm.model_executor.models.roberta import RobertaEmbeddingModel
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    PPMissingLayer,
    WeightsMapper,
    maybe_prefix,
)
from vllm.multimodal import MULTIMODAL_REGISTRY

from serving.engines._vllm.packing import Facts
from serving.engines._vllm.pooler import SpanPooler

__all__ = [
    "PolyvecBert",
    "PolyvecLlama",
    "PolyvecModernBert",
    "PolyvecQwen2",
    "PolyvecQwen2_5_VL",
    "PolyvecQwen2_VL",
    "PolyvecQwen3",
    "PolyvecRoberta",
]

Weights = Iterable[tuple[str, Tensor]]

_OWN = "model."
_PROJECTOR = "multi_vector_projector"
# No output layer is needed, and the rerankers' own have files of their own, which the pooler reads.
_LEFT_OUT = ("lm_head.", "projector.", "score.")


def _pooled(model: nn.Module, vllm_config: VllmConfig) -> Facts:
    """Give a model our pooler, and word of each step's beginning."""
    facts = Facts.unpacked(vllm_config.additional_config["polyvec"])
    pooler = SpanPooler(facts)
    model.pooler = pooler
    model.register_forward_pre_hook(lambda *_: pooler.start())
    return facts


def _bare(weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Weights under the names that transformers' base class has for them, without an output."""
    for name, tensor in weights:
        if not name.startswith(_LEFT_OUT):
            yield name.removeprefix(_OWN), tensor


def _placed(name: str) -> str:
    """The place in a Qwen-VL of a weight of transformers' base class, in its older layout too."""
    if name.startswith("visual."):
        return name
    if name.startswith(f"{_PROJECTOR}."):
        return f"language_model.{name}"
    return f"language_model.{_OWN}" + name.removeprefix("language_model.").removeprefix(_OWN)


class _Decoder(nn.Module, SupportsLoRA):
    """A backbone of vLLM's under the name `model`, and nothing on top of it."""

    is_pooling_model = True
    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    embedding_modules: ClassVar[dict[str, str]] = {}
    hf_to_vllm_mapper = WeightsMapper(orig_to_new_prefix={"": _OWN})
    kind: ClassVar[type[nn.Module]]

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        self.config = vllm_config.model_config.hf_config
        self.model = self.kind(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        _pooled(self, vllm_config)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """`[tokens] -> [tokens, hidden]`."""
        embed: Any = self.model.embed_input_ids
        embedded: Tensor = embed(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: object | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """The last layer's states, `[tokens, hidden]`."""
        states: Tensor = self.model(input_ids, positions, intermediate_tensors, inputs_embeds)
        return states

    def load_weights(self, weights: Weights) -> set[str]:
        """The names of the parameters that were filled."""
        named = ((_OWN + name, tensor) for name, tensor in _bare(weights))
        loaded: set[str] = AutoWeightsLoader(self).load_weights(named)
        return loaded


class PolyvecQwen2(_Decoder):
    """Qwen2."""

    kind = Qwen2Model


class PolyvecQwen3(_Decoder):
    """Qwen3: Qwen3-Embedding and -Reranker, jina-embeddings-v5-text-small, jina-reranker-v3."""

    kind = Qwen3Model


class PolyvecLlama(_Decoder):
    """Llama and Mistral; with `is_causal` false in its config also EuroBERT."""

    kind = LlamaModel


class PolyvecBert(BertEmbeddingModel):
    """BERT."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        _pooled(self, vllm_config)


class PolyvecRoberta(RobertaEmbeddingModel):
    """RoBERTa and XLM-R: multilingual-e5, bge-m3."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        _pooled(self, vllm_config)


class PolyvecModernBert(ModernBertModel):
    """ModernBERT."""

    is_pooling_model = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        _pooled(self, vllm_config)


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2_5_VLMultiModalProcessor,
    info=Qwen2_5_VLProcessingInfo,
    dummy_inputs=Qwen2_5_VLDummyInputsBuilder,
)
class PolyvecQwen2_5_VL(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL with the projector of jina-embeddings-v4 among its layers.

    The projector runs in the forward pass, where vLLM knows which token is whose adapter's; below
    `language_model`, because vLLM adapts nothing elsewhere.
    """

    is_pooling_model = True
    hf_to_vllm_mapper = WeightsMapper(
        orig_to_new_prefix={
            "language_model.": "language_model.model.",
            f"{_PROJECTOR}.": f"language_model.{_PROJECTOR}.",
        }
    )

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.language_model.lm_head = PPMissingLayer()
        self._projects = False
        if width := _pooled(self, vllm_config).projected:
            self._projects = True
            hidden = vllm_config.model_config.hf_text_config.hidden_size
            name = maybe_prefix(prefix, f"language_model.{_PROJECTOR}")
            self.language_model.multi_vector_projector = ReplicatedLinear(
                hidden, width, bias=True, prefix=name
            )

    # A foreign border: vLLM's own signature.
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """`[tokens, hidden + projected]`."""
        states: Tensor = super().forward(*args, **kwargs)
        if not self._projects:
            return states
        projected, _ = self.language_model.multi_vector_projector(states)
        return torch.cat([states, projected], dim=-1)

    def load_weights(self, weights: Weights) -> set[str]:
        """The names of the parameters that were filled."""
        named = ((_placed(name), tensor) for name, tensor in _bare(weights))
        loaded: set[str] = AutoWeightsLoader(self).load_weights(named)
        bias = f"language_model.{_PROJECTOR}.bias"
        if self._projects and bias not in loaded:  # the checkpoint's has none
            nn.init.zeros_(self.language_model.multi_vector_projector.bias)
            loaded.add(bias)
        return loaded


@MULTIMODAL_REGISTRY.register_processor(
    Qwen2VLMultiModalProcessor,
    info=Qwen2VLProcessingInfo,
    dummy_inputs=Qwen2VLDummyInputsBuilder,
)
class PolyvecQwen2_VL(Qwen2VLForConditionalGeneration):
    """Qwen2-VL: jina-reranker-m0."""

    is_pooling_model = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.language_model.lm_head = PPMissingLayer()
        _pooled(self, vllm_config)

    def load_weights(self, weights: Weights) -> set[str]:
        """The names of the parameters that were filled."""
        named = ((_placed(name), tensor) for name, tensor in _bare(weights))
        loaded: set[str] = AutoWeightsLoader(self).load_weights(named)
        return loaded
