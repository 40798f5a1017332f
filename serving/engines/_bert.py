"""BERT's encoder from its files, in few steps, for what most sentence embedders are.

The same sums as transformers', in half the operations: one matrix product for queries, keys and
values; the gelu and the residual sums inside the products; and on a CPU, weights that oneDNN has
laid out once, where torch would lay them out anew for every product. A short text on one core
takes about half the time. Only attention sees the padding of a batch; all else runs over the real
tokens, one text after another. And a server starts without importing transformers, which takes
longer than everything else that it does until it is ready.

A checkpoint that is not exactly of this kind, in its config or in any tensor's name or shape, is
left to transformers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Encoder", "Facts", "Linear", "Packed", "Plain", "load"]

_log = logging.getLogger(__name__)

_ABSOLUTE = frozenset({"bert"})  # positions count from 0; in the others, from the padding token on
_ARCHITECTURES = _ABSOLUTE | {"camembert", "roberta", "xlm-roberta"}
_ACTIVATIONS = {  # transformers' name: oneDNN's name and algorithm
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}
_PREFIXES = ("", "bert.", "roberta.")


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


@dataclass(frozen=True, slots=True)
class Facts:
    """What the config says, and the encoder needs."""

    heads: int
    layers: int
    activation: str
    epsilon: float
    pad: int
    absolute: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Norm:
    weight: Tensor
    bias: Tensor
    epsilon: float

    def __call__(self, states: Tensor) -> Tensor:
        width = (states.shape[-1],)
        return functional.layer_norm(states, width, self.weight, self.bias, self.epsilon)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    qkv: Linear
    out: Linear
    attention_norm: _Norm
    up: Linear
    down: Linear
    norm: _Norm


class Encoder:
    """`(ids [n, longest], mask [n, longest] bool or None) -> [n, longest, hidden]`."""

    def __init__(self, facts: Facts, weights: Mapping[str, Tensor], pack: Pack) -> None:
        """`KeyError` where a weight is missing."""
        self.pad = facts.pad
        self._facts = facts
        self._words = weights["embeddings.word_embeddings.weight"]
        self._positions = weights["embeddings.position_embeddings.weight"]
        self._type = weights["embeddings.token_type_embeddings.weight"][0]
        self._norm = _norm(weights, "embeddings", facts)
        self._layers = [_layer(weights, i, facts, pack) for i in range(facts.layers)]
        self._bucketed = pack is Packed

    def __call__(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """The last layer's token states."""
        rows, longest = ids.shape
        real = None if mask is None else mask.flatten().nonzero().squeeze(1)
        states = _gathered(self._embedded(ids).flatten(0, 1), real)
        tokens, hidden = states.shape
        room = _bucket(tokens) if self._bucketed else tokens
        if room > tokens:
            states = functional.pad(states, (0, 0, 0, room - tokens))
        split = (rows, longest, 3, self._facts.heads, hidden // self._facts.heads)
        wide_mask = None if mask is None else mask[:, None, None, :]
        for layer in self._layers:
            qkv = _spread(layer.qkv(states)[:tokens], real, rows * longest).view(split)
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = functional.scaled_dot_product_attention(query, key, value, wide_mask)
            attended = states.new_empty(room, hidden)
            mixed = mixed.transpose(1, 2).reshape(rows * longest, hidden)
            attended[:tokens] = _gathered(mixed, real)
            attended[tokens:] = 0
            states = layer.attention_norm(layer.out.plus(attended, states))
            inner = layer.up.activated(states, self._facts.activation)
            states = layer.norm(layer.down.plus(inner, states))
        return _spread(states[:tokens], real, rows * longest).view(rows, longest, hidden)

    def _embedded(self, ids: Tensor) -> Tensor:
        if self._facts.absolute:
            positions = self._positions[: ids.shape[1]]
        else:  # a padding token, wherever it stands, has the padding's own position
            real = ids.ne(self.pad).long()
            positions = functional.embedding(real.cumsum(1) * real + self.pad, self._positions)
        return self._norm(functional.embedding(ids, self._words) + self._type + positions)


def _gathered(rows: Tensor, real: Tensor | None) -> Tensor:
    """`[all, n] -> [real, n]`: the tokens that are no padding."""
    return rows if real is None else rows.index_select(0, real)


def _spread(packed: Tensor, real: Tensor | None, room: int) -> Tensor:
    """`[real, n] -> [room, n]`: back where they stood, and zeros in between."""
    if real is None:
        return packed
    return packed.new_zeros(room, packed.shape[1]).index_copy_(0, real, packed)


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> Encoder | None:
    """The encoder of the checkpoint in `folder`, or None where it is not exactly of this kind."""
    try:
        facts = _facts(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        weights = _weights(folder / "model.safetensors", dtype, device)
        plain = Encoder(facts, weights, Plain)
        packed = Encoder(facts, weights, Packed) if device.type == "cpu" else plain
        return packed if _agree(plain, packed, device) else plain
    except Exception as error:
        _log.debug("%s is left to transformers: %r", folder, error)
        return None


def _facts(config: dict[str, Any]) -> Facts:  # as the file has it
    """`ValueError` or `KeyError` where the config says something that is not done here."""
    kind = config["model_type"]
    strange = [key for key in ("auto_map", "is_decoder", "quantization_config") if config.get(key)]
    if kind not in _ARCHITECTURES or strange:
        raise ValueError(f"{kind} with {strange}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(config["position_embedding_type"])
    if config["hidden_act"] not in _ACTIVATIONS:
        raise ValueError(config["hidden_act"])
    return Facts(
        heads=config["num_attention_heads"],
        layers=config["num_hidden_layers"],
        activation=config["hidden_act"],
        epsilon=config["layer_norm_eps"],
        pad=config["pad_token_id"],
        absolute=kind in _ABSOLUTE,
    )


def _weights(file: Path, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Tensors by name, without the prefix that heads put before a backbone."""
    stored = safetensors.torch.load_file(file)
    first = "embeddings.word_embeddings.weight"
    [prefix] = [one for one in _PREFIXES if one + first in stored]
    return {
        name.removeprefix(prefix): tensor.to(device, dtype)
        for name, tensor in stored.items()
        if name.startswith(prefix) and tensor.is_floating_point()
    }


def _norm(weights: Mapping[str, Tensor], name: str, facts: Facts) -> _Norm:
    stem = f"{name}.LayerNorm"
    return _Norm(weights[f"{stem}.weight"], weights[f"{stem}.bias"], facts.epsilon)


def _layer(weights: Mapping[str, Tensor], index: int, facts: Facts, pack: Pack) -> _Layer:
    stem = f"encoder.layer.{index}"

    def linear(*names: str) -> Linear:
        both = [
            torch.cat([weights[f"{stem}.{name}.{kind}"] for name in names])
            for kind in ("weight", "bias")
        ]
        return pack(*both)

    own = [f"attention.self.{name}" for name in ("query", "key", "value")]
    return _Layer(
        qkv=linear(*own),
        out=linear("attention.output.dense"),
        attention_norm=_norm(weights, f"{stem}.attention.output", facts),
        up=linear("intermediate.dense"),
        down=linear("output.dense"),
        norm=_norm(weights, f"{stem}.output", facts),
    )


def _agree(plain: Encoder, packed: Encoder, device: torch.device) -> bool:
    """Whether oneDNN gives what torch gives, up to roundings, with padding and without."""
    if packed is plain:
        return True
    ids = torch.arange(plain.pad + 1, plain.pad + 49, device=device).view(3, 16)
    mask = torch.arange(16, device=device) < torch.tensor([[16], [3], [9]], device=device)
    padded = ids.masked_fill(~mask, plain.pad)
    pairs = [
        (plain(padded, mask)[mask], packed(padded, mask)[mask]),
        (plain(ids, None), packed(ids, None)),
    ]
    bound = 1e-4 if pairs[0][0].dtype == torch.float32 else 0.03
    return all((a.float() - b.float()).norm() <= bound * a.float().norm() for a, b in pairs)


def _bucket(tokens: int) -> int:
    """The next of 16 sizes between a power of two and the next, so at most 6 % more.

    oneDNN compiles code for every number of rows it meets, in 1 to 2 ms, and keeps 1024 of them.
    """
    step = max(1 << (tokens.bit_length() - 1) >> 4, 1)
    return -(-tokens // step) * step
