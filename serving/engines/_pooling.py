"""Token states to one vector each, as sentence-transformers does it: pooling, then dense heads."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from serving.engines._faults import first_line
from serving.errors import ModelUnavailable
from serving.models.spec import Dense, PoolingMode

__all__ = ["Extent", "head", "pool"]


class Extent:
    """Which token states of a right-padded batch count: those from `skips` up to `lengths`."""

    def __init__(self, lengths: Sequence[int], skips: Sequence[int], device: torch.device) -> None:
        self.longest = max(lengths)
        self.padded = min(lengths) < self.longest
        # An input that has nothing beside what is skipped is taken whole: no vector is undefined.
        firsts = [skip if skip < n else 0 for skip, n in zip(skips, lengths, strict=True)]
        self.whole = not self.padded and not any(firsts)
        self.lengths = torch.tensor(lengths, device=device)
        self.firsts = torch.tensor(firsts, device=device)
        self._places = torch.arange(self.longest, device=device)

    def attended(self) -> Tensor:
        """`[n, longest]` bool: true where there is a token."""
        return self._places < self.lengths[:, None]

    def pooled(self) -> Tensor:
        """`[n, longest]` bool: true where a token takes part in the pooling."""
        return self.attended() & (self._places >= self.firsts[:, None])


def pool(states: Tensor, extent: Extent, modes: Sequence[PoolingMode]) -> Tensor:
    """`[n, longest, hidden] -> [n, len(modes) * hidden]` in float32."""
    vectors = [_pool(states, extent, mode) for mode in modes]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)


def _pool(states: Tensor, extent: Extent, mode: PoolingMode) -> Tensor:
    rows = torch.arange(len(states), device=states.device)
    match mode:
        case "cls":
            return states[rows, extent.firsts].float()
        case "last":
            return states[rows, extent.lengths - 1].float()
        case "max":
            if extent.whole:
                return states.amax(dim=1).float()
            out = ~extent.pooled()[..., None]
            return states.masked_fill(out, float("-inf")).amax(dim=1).float()
        case "mean" | "mean_sqrt_len":
            counts = (extent.lengths - extent.firsts)[:, None].float()
            if not extent.whole:
                states = states * extent.pooled()[..., None]
            total = states.sum(dim=1, dtype=torch.float32)
            return total / (counts if mode == "mean" else counts.sqrt())


def head(path: str, heads: Sequence[Dense], device: torch.device) -> nn.Sequential:
    """Dense layers of the checkpoint in `path`, with their weights, in float32."""
    layers: list[nn.Module] = []
    for dense in heads:
        layers += [_linear(Path(path) / dense.folder / dense.weights, dense)]
        layers += [_activation(dense)]
    return nn.Sequential(*layers).to(device, torch.float32).eval()


def _linear(file: Path, dense: Dense) -> nn.Linear:
    linear = nn.Linear(dense.inputs, dense.outputs, bias=dense.bias)
    try:
        if file.suffix == ".safetensors":
            weights = safetensors.torch.load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        linear.load_state_dict({name.removeprefix("linear."): w for name, w in weights.items()})
    except Exception as error:
        message = f"the dense layer in {file} cannot be read: {first_line(error)}"
        raise ModelUnavailable(message) from None
    return linear


def _activation(dense: Dense) -> nn.Module:
    """An instance of a class of `torch.nn`, and of nothing else."""
    module, _, name = dense.activation.rpartition(".")
    kind: object = None
    if module == "torch.nn" or module.startswith("torch.nn."):
        with suppress(ImportError):
            kind = getattr(importlib.import_module(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        message = f"the activation {dense.activation!r} of {dense.folder} is no torch.nn module"
        raise ModelUnavailable(message)
    return kind()
