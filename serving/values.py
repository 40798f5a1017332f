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
    "Fused",
    "Image",
    "Ints",
    "Item",
    "Job",
    "Output",
    "Pair",
    "Pdf",
    "Pixels",
    "Prepared",
    "Ragged",
    "ServiceClass",
    "Sparse",
    "Stages",
    "Text",
    "TokenIds",
    "Usage",
    "Vectors",
    "parts_of",
]

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int32]

ServiceClass: TypeAlias = Literal["interactive", "bulk"]


@dataclass(frozen=True, slots=True)
class Text:
    """One text to embed; an empty one is valid."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenIds:
    """An input as the model's own token ids, all of them: no prompt and nothing special is added.

    A request has no other items beside them.
    """

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Image:
    """One image to embed: an address, a data URI or base64, not yet looked at."""

    source: str


@dataclass(frozen=True, slots=True)
class Pdf:
    """A document whose every page becomes an image: an address, a data URI or base64."""

    source: str


@dataclass(frozen=True, slots=True)
class Fused:
    """Texts and images, in the order given, that become one vector together."""

    parts: tuple[Text | Image, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a document, to be scored together by a model that reads both at once.

    `instruction` says what makes a document relevant; None is the model's own.
    """

    query: Text | Image
    document: Text | Image
    instruction: str | None = None


Item: TypeAlias = Text | TokenIds | Image | Pdf | Fused | Pair


def parts_of(item: Item) -> tuple[Text | TokenIds | Image | Pdf, ...]:
    """The texts and images that an item is made of."""
    match item:
        case Fused(parts):
            return parts
        case Pair(query, document):
            return query, document
    return (item,)


@dataclass(frozen=True, slots=True)
class Output:
    """What the caller wants back: `dimensions` (None: all), and whether of unit length.

    Besides or instead of the `dense` vector: `multi`, a vector a token; `sparse`, a weight a token
    id; `tokens`, the tokens' own text beside a multi-vector. One forward gives all of them.
    """

    dimensions: int | None = None
    normalized: bool = True
    dense: bool = True
    multi: bool = False
    sparse: bool = False
    tokens: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """A wire request, read but not yet checked against its model.

    `task` is the caller's own word for a task; `role` ("query", "document", …) a weaker hint that
    a model without tasks may ignore. `late_chunking`: the items are chunks of one document.
    `max_pixels` bounds every image below the model's own bound, and `document_tokens` every text,
    or every document of a `Pair`, which is cut to it. `field` is what the request calls its items.
    """

    model: str
    items: tuple[Item, ...]
    task: str | None = None
    role: str | None = None
    output: Output = field(default_factory=Output)
    truncate: bool = False
    late_chunking: bool = False
    max_pixels: int | None = None
    document_tokens: int | None = None
    field: str = "input"


@dataclass(frozen=True, slots=True)
class Job:
    """A request checked against its model: everything that needs no tokenizer is settled."""

    model: str
    items: tuple[Item, ...]
    task: str | None = None
    output: Output = field(default_factory=Output)
    truncate: bool = False
    service_class: ServiceClass = "interactive"
    late_chunking: bool = False
    max_pixels: int | None = None
    document_tokens: int | None = None
    field: str = "input"


@dataclass(frozen=True, slots=True)
class Usage:
    """What the caller owes for, in tokens the model sees. Counted once, where they are made.

    `image_tokens` are those of images times the model's `token_multiplier`.
    """

    text_tokens: int = 0
    image_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Text and image tokens together."""
        return self.text_tokens + self.image_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.text_tokens + other.text_tokens, self.image_tokens + other.image_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An image as the model sees it: `array` is `[height, width, 3]` uint8 RGB, sized already.

    Its placeholder tokens are `Prepared.ids[at : at + tokens]`. In a gateway that has the image
    elsewhere, `array` is a reference that `deployments` alone can follow.
    """

    at: int
    tokens: int
    array: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Token ids of a job: all that an engine needs, and what is owed for it.

    `ids` is `[tokens]` int32, the inputs one after another; `lengths` is `[inputs]` int32 and sums
    to `tokens`; an image has as many placeholder ids as the model makes tokens of it. `skip` counts
    the leading tokens of every input (special and prompt tokens) that the model's pooling leaves
    out; 0 for nearly every model. `task` is the job's, for choosing a replica group; `adapter` what
    the engine applies; `tenant` the id of whose it is, to whom the queue is fair.

    `spans` is None where every input has one vector, pooled as the model's spec says. Else it is
    `[pieces, 4]` int32 of (vector, input, start, end), in ascending order of vector and none of
    them empty: the vector is the mean of the token states from `start` up to `end` of that input,
    over all of its pieces, each token weighing the same. Multi-vectors and sparse weights are
    always those of whole inputs. `tokens` is the text of every input's tokens where asked for, and
    `special` the ids among them that are special tokens.
    """

    ids: Ints
    lengths: Ints
    usage: Usage
    output: Output = field(default_factory=Output)
    task: str | None = None
    adapter: str | None = None
    skip: int = 0
    service_class: ServiceClass = "interactive"
    spans: Ints | None = None
    pixels: tuple[Pixels, ...] = ()
    tokens: tuple[tuple[str, ...], ...] | None = None
    special: frozenset[int] = frozenset()
    tenant: str = ""

    @property
    def vectors(self) -> int:
        """How many dense vectors there will be."""
        return len(self.lengths) if self.spans is None else int(self.spans[-1, 0]) + 1


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds a request spent in each stage, for `server-timing`."""

    prepare_s: float = 0.0
    queue_s: float = 0.0
    infer_s: float = 0.0
    embed_s: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Multi-vectors: `values` is `[rows, width]` float32, `counts` `[inputs]` int32 of rows each.

    Every row is of unit length.
    """

    values: Floats
    counts: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """Token ids with a weight above zero: `ids` int32 and `weights` float32, both `[entries]`.

    `counts` is `[inputs]` int32 of entries each; the ids of an input ascend.
    """

    ids: Ints
    weights: Floats
    counts: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """What an engine gives back: `array` is `[vectors, dimensions]` float32, C-contiguous.

    `dimensions` is 0 where no dense vector was asked for; `multi` and `sparse` are there where they
    were. `queue_s` is the longest that an input waited to be batched, `infer_s` the seconds from
    the first batch's start to the last one's end.
    """

    array: Floats
    queue_s: float = 0.0
    infer_s: float = 0.0
    multi: Ragged | None = None
    sparse: Sparse | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A job done: its vectors `[vectors, dimensions]`, what is owed, where the time went.

    `tokens` is the text of every multi-vector's rows, where it was asked for; `spans` those of
    `Prepared`.
    """

    vectors: Floats
    usage: Usage
    stages: Stages
    multi: Ragged | None = None
    sparse: Sparse | None = None
    tokens: tuple[tuple[str, ...], ...] | None = None
    spans: Ints | None = None
