"""The numbers and choices of a rollout that the wire honours."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ApiSettings"]


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How long and how large a request may be.

    `watch_disconnects` stops the work of a caller that has gone; turn it off where the server that
    runs the app cancels it by itself (Ray Serve does). `writes_request_id` adds `x-request-id` to
    responses; turn it off where the server does so (Ray Serve does, with the same id).

    `accept_token_ids` takes lists of integers for the model's own token ids; they are refused
    otherwise, because those that clients make are most often of another tokenizer.

    `open_models`, `open_metrics` and `open_docs` let those routes be asked without a key.
    """

    body_bytes: int = 32 * 1024 * 1024
    body_timeout_s: float = 30.0
    request_timeout_s: float = 60.0
    probe_timeout_s: float = 5.0
    watch_disconnects: bool = True
    writes_request_id: bool = True
    accept_token_ids: bool = False
    open_models: bool = False
    open_metrics: bool = False
    open_docs: bool = False
