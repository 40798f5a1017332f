"""What the rerankers' families write alike: layers on top of a backbone, in files of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from serving.models.checkpoints import Checkpoint
from serving.models.families._facts import tensor_of
from serving.models.spec import Dense
from serving.models.tensors import Tensor, save

__all__ = ["IDENTITY", "RELU", "copy_layers", "layer", "write_layer"]

IDENTITY = "torch.nn.modules.linear.Identity"
RELU = "torch.nn.modules.activation.ReLU"


def layer(folder: str, inputs: int, outputs: int, bias: bool, activation: str) -> Dense:
    """A linear layer in a folder of its own: beside the weights, vLLM would load it as one."""
    return Dense(folder, "model.safetensors", inputs, outputs, bias, activation)


def copy_layers(
    checkpoint: Checkpoint, places: Mapping[str, str], view: Path, layers: Iterable[Dense]
) -> None:
    """Layers that are among the checkpoint's weights: `score/0` as `score.0.weight`."""
    for one in layers:
        shapes: dict[str, tuple[int, ...]] = {"weight": (one.outputs, one.inputs)}
        if one.bias:
            shapes["bias"] = (one.outputs,)
        name = one.folder.replace("/", ".")
        found = {
            part: tensor_of(checkpoint, places, f"{name}.{part}", shape)
            for part, shape in shapes.items()
        }
        write_layer(view, one, found)


def write_layer(view: Path, one: Dense, tensors: Mapping[str, Tensor]) -> None:
    """The file of a layer."""
    (view / one.folder).mkdir(parents=True)
    save(view / one.folder / one.weights, tensors)
