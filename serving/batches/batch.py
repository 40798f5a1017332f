"""What a batch is: its state, the pieces that it is cut into, and the numbers that bound it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["Batch", "BatchOptions", "Piece", "Status", "Tally"]

Status: TypeAlias = Literal["pending", "processing", "completed", "failed", "expired", "cancelled"]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """The numbers of a rollout. `folder` "" is a folder of the machine's state folder.

    A batch must be done within `window_s`, and its files are kept for `keep_s` after its end. It
    has at most `lines`, in a file of `file_bytes`, no line above `line_bytes`; a tenant has at most
    `per_tenant` batches unfinished. A gateway works on `at_once` batches, with `requests` pieces of
    each under way; a piece has at most `piece_lines` lines, `piece_inputs` inputs and `piece_bytes`
    bytes, where it has more than one line, and `request_timeout_s` for one attempt. What fails on
    our side is tried again `retries` times. A lease runs out after `lease_s`; new batches are
    looked for every `poll_s`.
    """

    folder: str = ""
    window_s: float = 86_400.0
    keep_s: float = 86_400.0
    lines: int = 50_000
    file_bytes: int = 1 << 30
    line_bytes: int = 32 << 20
    per_tenant: int = 16
    at_once: int = 2
    requests: int = 4
    piece_lines: int = 32
    piece_inputs: int = 256
    piece_bytes: int = 1 << 17
    request_timeout_s: float = 60.0
    retries: int = 8
    lease_s: float = 30.0
    poll_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of lines, and the tokens that were billed for them."""

    completed: int = 0
    failed: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A file of `lines` to embed for `tenant`, whose key `key_id` sent it.

    `options` are the fields that lines have unless they say otherwise, as JSON. Times are
    `time.time()`: `expires` is when the batch must be done, and, after its end, when its files go.
    """

    id: str
    tenant: str
    key_id: str
    model: str
    options: bytes
    lines: int
    created: float
    expires: float
    status: Status = "pending"
    ended: float | None = None
    error: str | None = None
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class Piece:
    """Lines that are asked for and billed together: `lines` of them from number `first` (1) on.

    They are the `size` bytes of the batch's file from `offset` on. Once done, `result` names its
    files, which have `output` and `errors` bytes.
    """

    first: int
    lines: int
    offset: int
    size: int
    result: str | None = None
    tally: Tally = field(default_factory=Tally)
    output: int = 0
    errors: int = 0
