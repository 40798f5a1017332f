"""The facts of a model, read from its checkpoint: sizes, tasks, pooling, heads. Frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = [
    "Adapter",
    "Dense",
    "Listwise",
    "ModelSpec",
    "MultiVector",
    "Pairwise",
    "Pooling",
    "PoolingMode",
    "SparseWeights",
    "TaskSpec",
    "Vision",
]

PoolingMode: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len", "last"]


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A way of asking a model: its wire name, other names for it, a prompt prefix, an adapter."""

    name: str
    prompt: str = ""
    aliases: tuple[str, ...] = ()
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Pooling:
    """How token states `[tokens, hidden]` become one vector.

    Several modes are concatenated in the order given. `include_prompt` false leaves the prompt's
    tokens out (`Prepared.skip`).
    """

    modes: tuple[PoolingMode, ...] = ("mean",)
    include_prompt: bool = True


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer after pooling: `folder` (relative to the checkpoint) holds its weights.

    `weights` is the file in that folder, `activation` the dotted path of a torch module class.
    """

    folder: str
    weights: str
    inputs: int
    outputs: int
    bias: bool
    activation: str


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA in PEFT's layout: `path` is a directory with adapter_config.json and its weights.

    Its keys name the modules of the backbone as transformers' base class has them, behind
    `base_model.model.`; `multi_vector_projector` is among them where it is adapted. `rank` is r.
    """

    name: str
    path: str
    rank: int


@dataclass(frozen=True, slots=True)
class MultiVector:
    """A vector for every token, each of unit length: `[hidden] -> [dimensions]`.

    `skip` leading tokens have none. `head` is a linear layer in a file of its own; None means
    `multi_vector_projector` among the backbone's weights, which adapters may change.
    """

    dimensions: int
    skip: int = 0
    head: Dense | None = None


@dataclass(frozen=True, slots=True)
class SparseWeights:
    """A weight for every token id: the largest relu(`head`) of its tokens, `[hidden] -> [1]`.

    The ids in `without` (special tokens) have none.
    """

    head: Dense
    without: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Vision:
    """How a Qwen-VL backbone takes images.

    An image is resized so that both sides are multiples of `patch * merge` and its area lies
    between `min_pixels` and `max_pixels`; it becomes one `pad` token for each such square. `prompt`
    is the whole input of an image, with `start`, one `pad` and `end` in it; `opening` and `closing`
    are what stands around the parts of a fused input. The vector is the mean from `start` to `end`,
    both included. A pixel is (value / 255 - mean) / std, and every frame is taken `temporal` times.
    """

    prompt: str
    opening: str
    closing: str
    start: str
    end: str
    pad: str
    patch: int
    merge: int
    temporal: int
    min_pixels: int
    max_pixels: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    token_multiplier: int = 1


@dataclass(frozen=True, slots=True)
class Pairwise:
    """How a cross-encoder reads a query and one document, which it scores by one number.

    Its input is `opening`, then `body` with `{query}`, `{document}` and `{instruction}` in their
    places, then `closing` and the token ids `last`; None for `instruction` means that it takes
    none. Special tokens of `opening` and `closing` are tokens. Where an input may be cut, a
    document keeps `document_tokens` (None: what fits). The score is sigmoid(logit - `shift`).
    """

    opening: str
    body: str
    closing: str
    last: tuple[int, ...] = ()
    instruction: str | None = None
    document_tokens: int | None = None
    shift: float = 0.0

    @property
    def instructed(self) -> bool:
        """Whether a caller may say what makes a document relevant."""
        return self.instruction is not None


@dataclass(frozen=True, slots=True)
class Listwise:
    """How a cross-encoder reads a query and many documents at once: a vector for each of them.

    Its input is `opening`, `first` with `{count}` and `{query}`, `instruct` with `{instruction}`
    where there is one, for every document `passage` with `{index}` and `{document}`, the special
    token `document_mark`, and `between`, then `ask` with `{query}`, the special token `query_mark`
    and `closing`. The vectors are those of the marks; a score is the cosine of two. The strings of
    the marks are left out of callers' texts. At most `most` documents are read at once, each cut to
    `document_tokens`, and the query to `query_tokens`.
    """

    opening: str
    first: str
    instruct: str
    passage: str
    document_mark: str
    between: str
    ask: str
    query_mark: str
    closing: str
    most: int
    query_tokens: int
    document_tokens: int

    @property
    def instructed(self) -> bool:
        """Whether a caller may say what makes a document relevant."""
        return True


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model is and can do. Every size comes from the checkpoint's own files.

    `path` is the checkpoint's directory on this machine (or a view of it, see `views`) and
    `transformer` the folder in it with the backbone's config.json ("" for the directory itself):
    transformers' base class loads it as it is. `dimensions` is the full width of a vector;
    `matryoshka` the widths it may be cut to, ascending and without the full one, or any from
    `least_dimensions` on; `max_tokens` the context, special tokens included. `default_task` is what
    an omitted task means (None: no prompt, no adapter). `literal` means that special tokens in a
    caller's text are plain text. `loadable` are adapters that an engine loads when they are asked
    for, by their sources (see `own`), which are their names. `reranker` is how a cross-encoder
    reads its pairs; it embeds nothing. `created` is a Unix time in seconds.
    """

    id: str
    family: str
    path: str
    source: str
    dimensions: int
    max_tokens: int
    aliases: tuple[str, ...] = ()
    revision: str | None = None
    licence: str | None = None
    created: int = 0
    transformer: str = ""
    lowercase: bool = False
    modalities: tuple[str, ...] = ("text",)
    tasks: tuple[TaskSpec, ...] = ()
    default_task: str | None = None
    matryoshka: tuple[int, ...] = ()
    default_dimensions: int | None = None
    pooling: Pooling = field(default_factory=Pooling)
    heads: tuple[Dense, ...] = ()
    normalize: bool = False
    least_dimensions: int | None = None
    adapters: tuple[Adapter, ...] = ()
    multi: MultiVector | None = None
    sparse: SparseWeights | None = None
    vision: Vision | None = None
    late_chunking: bool = False
    literal: bool = False
    loadable: tuple[str, ...] = ()
    reranker: Pairwise | Listwise | None = None
