"""The series of one request, recorded together where it ends: what it was, cost and took."""

from __future__ import annotations

from dataclasses import dataclass

from serving.errors import Refused
from serving.telemetry import metrics
from serving.telemetry.recording import Telemetry
from serving.values import ServiceClass, Stages, Usage

__all__ = ["Asked", "RequestMetrics"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose request it is and for what; what is not known, as before a refusal, is empty.

    `endpoint` is the route's own path or `grpc/Method`, never the path that a caller sent; `model`
    the public id and `task` the model's own name for it.
    """

    endpoint: str
    tenant: str = ""
    model: str = ""
    task: str = ""
    service_class: ServiceClass = "interactive"


class RequestMetrics:
    """Rate, errors and duration of the wire, and the tokens of the bill."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._requests = telemetry.series(metrics.REQUESTS)
        self._duration = telemetry.series(metrics.REQUEST_DURATION)
        self._stage = telemetry.series(metrics.STAGE_DURATION)
        self._tokens = telemetry.series(metrics.TOKENS_PER_REQUEST)
        self._inputs = telemetry.series(metrics.INPUTS_PER_REQUEST)
        self._billed = telemetry.series(metrics.BILLED_TOKENS)

    def answered(self, asked: Asked, seconds: float) -> None:
        """A request that was answered with what it asked for, embeddings or not."""
        self._ended(asked, "200", "OK", "ok", seconds)

    def billed(self, asked: Asked, usage: Usage, inputs: int) -> None:
        """The tokens of an answered request: what its response and its usage event say."""
        who = asked.tenant, asked.model, asked.task
        self._billed.record(usage.text_tokens, *who, "text")
        if usage.image_tokens:
            self._billed.record(usage.image_tokens, *who, "image")
        self._tokens.record(usage.total_tokens, asked.model)
        self._inputs.record(inputs, asked.model)

    def staged(self, model: str, stages: Stages, encode_s: float) -> None:
        """Where an answered request's time went."""
        record = self._stage.record
        record(stages.prepare_s, "tokenize", model)
        record(stages.queue_s, "queue", model)
        record(stages.infer_s, "infer", model)
        record(encode_s, "encode", model)

    def failed(self, asked: Asked, error: Exception, seconds: float) -> None:
        """A request that was answered with an error: refused, or failed on our side."""
        status = str(getattr(error, "status", 500))
        code = str(getattr(error, "code", "INTERNAL_ERROR"))
        outcome = "refused" if isinstance(error, Refused) else "failed"
        self._ended(asked, status, code, outcome, seconds)

    def gone(self, asked: Asked, seconds: float) -> None:
        """A request whose caller hung up before the answer, as 499."""
        self._ended(asked, "499", "CLIENT_GONE", "gone", seconds)

    def _ended(self, asked: Asked, status: str, code: str, outcome: str, seconds: float) -> None:
        self._requests.record(
            1, asked.tenant, asked.model, asked.task, asked.endpoint, status, code
        )
        self._duration.record(seconds, asked.endpoint, asked.model, asked.service_class, outcome)
