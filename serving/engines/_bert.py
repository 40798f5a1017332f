"""BERT's encoder in few steps, for the checkpoints that most sentence embedders are.

The same sums as transformers', in half the operations: one matrix product for queries, keys and
values; the gelu and the residual sums inside the products; and on a CPU, weights that oneDNN has
laid out once, where torch would lay them out anew for every product. A short text on one core
takes about half the time. Whoever builds one compares it with the original before using it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

__all__ = ["Encoder", "Linear", "Packed", "Plain"]

_ARCHITECTURES = frozenset({"bert", "camembert", "roberta", "xlm-roberta"})
_ACTIVATIONS = {  # transformers' name: oneDNN's name and algorithm
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}


class Linear(Protocol):
    """`[n, inputs] -> [n, outputs]`, and the two ways in which BERT goes on from there."""

    def __call__(self, states: Tensor) -> Tensor:
        """Weights and bias."""
        ...

    def plus(self, states: Tensor, residual: Tensor) -> Tensor:
        """Then the residual added."""
        ...

    def activated(self, states: Tensor, activation: str) -> Tensor:
        """Then the activation, by transformers' name."""
        ...


class Plain:
    """A `Linear` of torch's own operations, for any device."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, states: Tensor) -> Tensor:
        """See `Linear`."""
        return functional.linear(states, self._weight, self._bias)

    def plus(self, states: Tensor, residual: Tensor) -> Tensor:
        """See `Linear`."""
        return self(states).add_(residual)

    def activated(self, states: Tensor, activation: str) -> Tensor:
        """See `Linear`."""
        kind, algorithm = _ACTIVATIONS[activation]
        if kind == "relu":
            return functional.relu(self(states))
        return functional.gelu(self(states), approximate=algorithm)


class Packed:
    """A `Linear` whose weights lie as oneDNN wants them. On a CPU only."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        # A foreign border: these are what torch's own compiler emits, and have no public name.
        one_dnn: Any = torch.ops.mkldnn
        self._run: Any = one_dnn._linear_pointwise.default
        self._run_plus: Any = one_dnn._linear_pointwise.binary
        self._weight: Tensor = one_dnn._reorder_linear_weight(weight)
        self._bias = bias

    def __call__(self, states: Tensor) -> Tensor:
        """See `Linear`."""
        product: Tensor = self._run(states, self._weight, self._bias, "none", [], "")
        return product

    def plus(self, states: Tensor, residual: Tensor) -> Tensor:
        """See `Linear`."""
        total: Tensor = self._run_plus(states, residual, self._weight, self._bias, "add")
        return total

    def activated(self, states: Tensor, activation: str) -> Tensor:
        """See `Linear`."""
        kind, algorithm = _ACTIVATIONS[activation]
        product: Tensor = self._run(states, self._weight, self._bias, kind, [], algorithm)
        return product


Pack: TypeAlias = Callable[[Tensor, Tensor], Linear]


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    qkv: Linear
    out: Linear
    attention_norm: nn.LayerNorm
    up: Linear
    down: Linear
    norm: nn.LayerNorm


class Encoder:
    """`(ids [n, longest], mask [n, longest] bool or None) -> [n, longest, hidden]`."""

    def __init__(self, model: PreTrainedModel, pack: Pack) -> None:
        """Any error means that the model is not of this kind after all."""
        config = model.config
        if config.model_type not in _ARCHITECTURES or config.is_decoder:
            raise ValueError(f"{config.model_type} is no encoder like BERT")
        if config.hidden_act not in _ACTIVATIONS:
            raise ValueError(f"{config.hidden_act} is not fused")
        # A foreign border: transformers' modules are known by their attributes.
        parts: Any = model
        self._embeddings: Any = parts.embeddings
        self._layers = [_layer(one, pack) for one in parts.encoder.layer]
        self._heads: int = config.num_attention_heads
        self._activation: str = config.hidden_act
        self._bucketed = pack is Packed

    def __call__(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """The last layer's token states."""
        embedded: Tensor = self._embeddings(input_ids=ids)
        rows, longest, hidden = embedded.shape
        tokens = rows * longest
        room = _bucket(tokens) if self._bucketed else tokens
        heads = (rows, longest, self._heads, hidden // self._heads)
        states = embedded.reshape(tokens, hidden)
        if room > tokens:
            states = functional.pad(states, (0, 0, 0, room - tokens))
        wide_mask = None if mask is None else mask[:, None, None, :]
        for layer in self._layers:
            qkv = layer.qkv(states)[:tokens].view(rows, longest, 3, *heads[2:])
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = functional.scaled_dot_product_attention(query, key, value, wide_mask)
            attended = states.new_empty(room, hidden)
            attended[:tokens].view(heads).copy_(mixed.transpose(1, 2))
            attended[tokens:] = 0
            states = layer.attention_norm(layer.out.plus(attended, states))
            inner = layer.up.activated(states, self._activation)
            states = layer.norm(layer.down.plus(inner, states))
        return states[:tokens].view(rows, longest, hidden)


def _layer(one: Any, pack: Pack) -> _Layer:  # a foreign border, as above
    attention, out = one.attention.self, one.attention.output
    three = (attention.query, attention.key, attention.value)
    return _Layer(
        qkv=pack(torch.cat([x.weight for x in three]), torch.cat([x.bias for x in three])),
        out=pack(out.dense.weight, out.dense.bias),
        attention_norm=out.LayerNorm,
        up=pack(one.intermediate.dense.weight, one.intermediate.dense.bias),
        down=pack(one.output.dense.weight, one.output.dense.bias),
        norm=one.output.LayerNorm,
    )


def _bucket(tokens: int) -> int:
    """The next of 16 sizes between a power of two and the next, so at most 6 % more.

    oneDNN compiles code for every number of rows it meets, in 1 to 2 ms, and keeps 1024 of them.
    """
    step = max(1 << (tokens.bit_length() - 1) >> 4, 1)
    return -(-tokens // step) * step
