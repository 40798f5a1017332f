"""Images into a Qwen-VL backbone: patches of pixels, and embeddings with their positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from serving.models.spec import Vision
from serving.values import Pixels

__all__ = ["Placed", "embedded", "patches"]


class Placed(NamedTuple):
    """An image in the input at `row` of a batch."""

    row: int
    pixels: Pixels


def patches(pixels: Pixels, vision: Vision, device: torch.device) -> Tensor:
    """`[patches, 3 * temporal * patch * patch]` float32, in the order of Qwen-VL's merger.

    That is: block by block of merge x merge patches, row by row within a block; in a patch, the
    channels one after another, each `temporal` times.
    """
    side, merge = vision.patch, vision.merge
    height, width, channels = pixels.array.shape
    down, across = height // side // merge, width // side // merge
    blocks = pixels.array.reshape(down, merge, side, across, merge, side, channels)
    # A copy, because an array out of shared memory is read-only, and torch takes none such.
    ordered = np.array(blocks.transpose(0, 3, 1, 4, 6, 2, 5), order="C")
    values = torch.from_numpy(ordered).to(device).float()  # bytes travel, not floats
    values = values.view(down * across * merge * merge, channels, 1, side * side)
    # Divided by tensors: by a plain number, a GPU multiplies with a rounded reciprocal.
    shape = (channels, 1, 1)
    mean = torch.tensor(vision.mean, device=device).view(shape)
    std = torch.tensor(vision.std, device=device).view(shape)
    values = values.div_(torch.full(shape, 255.0, device=device)).sub_(mean).div_(std)
    return values.expand(-1, -1, vision.temporal, -1).flatten(1)


# A foreign border: transformers' Qwen-VL classes share these methods, but no type.
def embedded(
    model: Any, vision: Vision, ids: Tensor, mask: Tensor | None, images: Sequence[Placed]
) -> dict[str, Tensor]:
    """`inputs_embeds` and the three-fold `position_ids` of a batch with images in it.

    An image is where its `Pixels` say, whatever the ids are: a placeholder's id in somebody's text
    is text.
    """
    kinds = torch.zeros_like(ids, dtype=torch.int32)
    for row, one in images:
        kinds[row, one.at : one.at + one.tokens] = 1
    values = torch.cat([patches(one, vision, ids.device) for _, one in images])
    sizes = [[one.array.shape[0], one.array.shape[1]] for _, one in images]
    grids = torch.tensor([[1, h // vision.patch, w // vision.patch] for h, w in sizes])
    grids = grids.to(ids.device)
    states: Tensor = model.get_input_embeddings()(ids)
    features = torch.cat(model.get_image_features(values, grids).pooler_output)
    states = states.clone()
    states[kinds.bool()] = features.to(states.dtype)
    attended = None if mask is None else mask.long()
    positions, _ = model.get_rope_index(ids, kinds, image_grid_thw=grids, attention_mask=attended)
    return {"inputs_embeds": states, "position_ids": positions}
