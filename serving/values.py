"""The nouns that flow through the house, in flowing order. Data only: frozen, slotted, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "Answer",
    "Ask",
    "Floats",
    "Image",
    "Ints",
    "Item",
    "Job",
    "Output",
    "Prepared",
    "ServiceClass",
    "Stages",
    "Text",
    "Usage",
    "Vectors",
]

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int32]

ServiceClass: TypeAlias = Literal["interactive", "bulk"]


@dataclass(frozen=True, slots=True)
class Text:
    """One text to embed; an empty one is valid."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """One image to embed: an address, a data URI or base64, not yet looked at."""

    source: str


Item: TypeAlias = Text | Image


@dataclass(frozen=True, slots=True)
class Output:
    """What the caller wants back: `dimensions` (None: all), and whether of unit length."""

    dimensions: int | None = None
    normalized: bool = True


@dataclass(frozen=True, slots=True)
class Ask:
    """A wire request, read but not yet checked against its model.

    `task` is the caller's own word for a task; `role` ("query", "document", …) a weaker hint that
    a model without tasks may ignore.
    """

    model: str
    items: tuple[Item, ...]
    task: str | None = None
    role: str | None = None
    output: Output = field(default_factory=Output)
    truncate: bool = False
    service_class: ServiceClass = "interactive"


@dataclass(frozen=True, slots=True)
class Job:
    """A request checked against its model: everything that needs no tokenizer is settled."""

    model: str
    items: tuple[Item, ...]
    task: str | None = None
    output: Output = field(default_factory=Output)
    truncate: bool = False
    service_class: ServiceClass = "interactive"


@dataclass(frozen=True, slots=True)
class Usage:
    """What the caller owes for, in tokens the model sees. Counted once, where they are made."""

    text_tokens: int = 0
    image_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Text and image tokens together."""
        return self.text_tokens + self.image_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.text_tokens + other.text_tokens, self.image_tokens + other.image_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Token ids of a job: all that an engine needs, and what is owed for it.

    `ids` is `[tokens]` int32, the inputs one after another; `lengths` is `[inputs]` int32 and sums
    to `tokens`. `skip` counts the leading tokens of every input (special and prompt tokens) that
    the model's pooling leaves out; 0 for nearly every model. `task` is the job's, for choosing a
    replica group; `adapter` what the engine applies.
    """

    ids: Ints
    lengths: Ints
    usage: Usage
    output: Output = field(default_factory=Output)
    task: str | None = None
    adapter: str | None = None
    skip: int = 0
    service_class: ServiceClass = "interactive"


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds a request spent in each stage, for `server-timing`."""

    prepare_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0
    embed_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """What an engine gives back: `array` is `[inputs, dimensions]` float32, C-contiguous.

    `queue_s` is the longest that an input waited to be batched, `infer_s` the seconds from the
    first batch's start to the last one's end.
    """

    array: Floats
    queue_s: float = 0.0
    infer_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A job done: its vectors `[inputs, dimensions]`, what is owed, where the time went."""

    vectors: Floats
    usage: Usage
    stages: Stages
