"""A job to what vLLM is asked for each of its inputs, and its replies to what they gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.engines._calls import Part, Rest
from serving.engines._vllm.packing import Answer, Wish, answer
from serving.errors import PolyvecError
from serving.models.spec import ModelSpec
from serving.values import Ints, Pixels, Prepared
from serving.vectors.sparse import strongest

__all__ = ["Asked", "asked", "checked", "pad_token", "part", "vocabulary"]


class Asked(NamedTuple):
    """One input for vLLM: its prompt, what is wanted, and the ids that it has to see."""

    prompt: Mapping[str, Any]
    wish: Wish
    ids: list[int]


def asked(prepared: Prepared, rest: Rest, ends: Sequence[int], pad: int, now: float) -> list[Asked]:
    """Every input of a job. One without a token is a single `pad`: vLLM takes no empty prompt."""
    output, found, start = prepared.output, [], 0
    for end, wanted in zip(ends, rest.wanted, strict=True):
        ids, start = prepared.ids[start:end], end
        spans = None if wanted.spans is None else wanted.spans[:, 2:].tolist()
        wish = Wish(
            skip=prepared.skip,
            spans=spans,
            dense=output.dense,
            multi=output.multi and len(ids) > 0,
            sparse=output.sparse and len(ids) > 0,
            dimensions=output.dimensions,
            normalized=output.normalized,
            sent=now,
        )
        prompt: dict[str, Any] = {"prompt_token_ids": _folded(ids, wanted.pixels) or [pad]}
        if wanted.pixels:
            # torch takes arrays that can be written to: those of Ray's store are copied.
            arrays = [np.require(one.array, requirements="W") for one in wanted.pixels]
            prompt["multi_modal_data"] = {"image": arrays}
        found.append(Asked(prompt, wish, ids.tolist() or [pad]))
    return found


def checked(one: Asked, row: Any, ids: Sequence[int], cached: bool, spec: ModelSpec) -> Answer:
    """A reply taken apart. `PolyvecError` where vLLM saw other tokens than it was meant to."""
    if list(ids) != one.ids:
        message = f"the model saw {len(ids)} tokens where {len(one.ids)} were prepared, or others"
        raise PolyvecError(message)
    try:
        found = answer(row, one.wish, len(one.ids), spec)
    except ValueError:
        raise PolyvecError("the engine gave an answer of another size than was asked for") from None
    if found.tokens != len(one.ids) and not cached:
        raise PolyvecError(f"the engine pooled {found.tokens} of {len(one.ids)} token states")
    return found


def part(one: Asked, found: Answer, output: Any, spec: ModelSpec) -> Part:
    """What an input gave beside a pooled vector."""
    sums = found.dense if one.wish.spans is not None else None
    multi, sparse = found.multi, None
    if output.multi and multi is None and spec.multi is not None:
        multi = np.empty((0, spec.multi.dimensions), np.float32)
    if output.sparse and spec.sparse is not None:
        weights = np.empty(0, np.float32) if found.sparse is None else found.sparse
        ids = np.array(one.ids[: len(weights)], np.int32)
        sparse = strongest(ids, weights, spec.sparse.without)
    return Part(sums, multi, sparse)


def pad_token(config: Mapping[str, Any]) -> int:
    """The token that stands for nothing, as a config.json has it."""
    pad = (config.get("text_config") or config).get("pad_token_id")
    return pad if isinstance(pad, int) and pad >= 0 else 0


def vocabulary(config: Mapping[str, Any]) -> int:
    """How many token ids there are, as a config.json has it."""
    return int((config.get("text_config") or config)["vocab_size"])


def _folded(ids: Ints, pixels: Sequence[Pixels]) -> list[int]:
    """Ids with one placeholder for each image: vLLM makes as many of it as the image needs."""
    kept = np.ones(len(ids), np.bool_)
    for one in pixels:
        kept[one.at + 1 : one.at + one.tokens] = False
    folded: list[int] = ids[kept].tolist()
    return folded
