"""Images, PDFs and jobs for the tests of what prepares them."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import PIL.Image
from transformers import PreTrainedTokenizerBase

from serving.media import MediaOptions
from serving.models.spec import ModelSpec
from serving.preparing import open_preparer
from serving.preparing.vision import VisionPreparer
from serving.values import Image, Item, Job, Pdf, Prepared
from tests.serving.media.pictures import encoded, noise

__all__ = ["END", "PAD", "PROMPT", "START", "expanded", "image", "inputs", "pdf", "prepared"]

START, PAD, END = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
PROMPT = f"<|im_start|>user\n{START}{PAD}{END}Describe the image.<|im_end|>\n"


def image(height: int = 90, width: int = 130, seed: int = 0) -> Image:
    """Noise as a PNG in base64."""
    picture = PIL.Image.fromarray(noise(height, width, seed=seed))
    return Image(base64.b64encode(encoded(picture, "PNG")).decode())


def pdf(*sizes: tuple[int, int]) -> Pdf:
    """A page of noise for every (height, width), at a pixel a point."""
    first, *others = (PIL.Image.fromarray(noise(*size, seed=1)) for size in sizes)
    data = encoded(first, "PDF", save_all=True, append_images=others, resolution=72)
    return Pdf(base64.b64encode(data).decode())


def prepared(
    spec: ModelSpec, *items: Item, media: MediaOptions | None = None, **job: object
) -> Prepared:
    """What a preparer of `spec` makes of these items."""
    preparer = open_preparer(spec, media or MediaOptions())
    assert isinstance(preparer, VisionPreparer)
    try:
        return asyncio.run(preparer.prepare(Job("tiny", items, **job)))
    finally:
        preparer.close()


def inputs(one: Prepared) -> list[list[int]]:
    """The ids of every input."""
    return [part.tolist() for part in np.split(one.ids, np.cumsum(one.lengths)[:-1])]


def expanded(theirs: PreTrainedTokenizerBase, prompt: str, *tokens: int) -> list[int]:
    """A prompt's ids as transformers' processor has them: its placeholders repeated in the text."""
    first, *others = prompt.split(PAD)
    text = first + "".join(PAD * n + rest for n, rest in zip(tokens, others, strict=True))
    return theirs(text)["input_ids"]
