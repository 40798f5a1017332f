"""Everything that can go wrong, as facts: a code, a status, a sentence. Knows no bodies.

PolyvecError                       500  INTERNAL_ERROR
├── Refused                             the caller's doing; nothing is billed
│   ├── BrokenBody                 400  INPUT_INVALID_JSON
│   ├── InvalidInput               422  INPUT_INVALID
│   ├── ModelNotFound              404  INPUT_MODEL_NOT_FOUND
│   ├── TaskNotFound               400  INPUT_TASK_NOT_FOUND
│   ├── ModalityNotSupported       400  INPUT_MODALITY_NOT_SUPPORTED
│   ├── TokenLimitExceeded         400  INPUT_TOKEN_LIMIT_EXCEEDED
│   ├── BodyTooLarge               413  INPUT_BODY_TOO_LARGE
│   ├── InputTooLarge              413  INPUT_TOO_LARGE_FOR_MEMORY
│   ├── MediaTooLarge              413  INPUT_MEDIA_TOO_LARGE
│   ├── MediaInvalid               422  INPUT_MEDIA_INVALID
│   ├── MediaUnreachable           422  INPUT_MEDIA_UNREACHABLE
│   ├── BodyTimeout                408  INPUT_BODY_TIMEOUT
│   ├── MissingKey                 401  AUTH_MISSING_API_KEY
│   ├── InvalidKey                 401  AUTH_INVALID_API_KEY
│   ├── Forbidden                  403  AUTHZ_FORBIDDEN
│   ├── LimitExceeded              429  RATE_LIMIT_EXCEEDED  refused by a quota; nothing is charged
│   │   ├── RequestLimitExceeded   429  RATE_REQUEST_LIMIT_EXCEEDED
│   │   ├── TokenRateExceeded      429  RATE_TOKEN_LIMIT_EXCEEDED
│   │   ├── ConcurrencyExceeded    429  RATE_CONCURRENCY_LIMIT_EXCEEDED
│   │   ├── ImageLimitExceeded     429  RATE_IMAGE_LIMIT_EXCEEDED
│   │   └── MonthlyLimitExceeded   429  RATE_MONTHLY_TOKEN_LIMIT_EXCEEDED
│   ├── ResourceNotFound           404  RESOURCE_NOT_FOUND
│   └── MethodNotAllowed           405  METHOD_NOT_ALLOWED
├── Unavailable                    503  SERVICE_UNAVAILABLE
│   ├── Overloaded                 503  SERVICE_OVERLOADED
│   └── EngineDied                 503  ENGINE_DIED          a replica's; its calls are sent again
├── EngineCrashed                  500  INPUT_CRASHES_ENGINE  replicas die under it; not sent again
├── DeadlinePassed                 504  SERVICE_TIMEOUT
├── ModelUnavailable               500  MODEL_UNAVAILABLE    a checkpoint that cannot be had or read
└── InvalidConfig                  500  CONFIG_INVALID       a configuration that cannot be served

Arguments are positional and handed to `Exception.__init__`, so that every error survives pickle:
an error raised in a replica is the same error in the gateway.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BodyTimeout",
    "BodyTooLarge",
    "BrokenBody",
    "ConcurrencyExceeded",
    "DeadlinePassed",
    "EngineCrashed",
    "EngineDied",
    "Forbidden",
    "ImageLimitExceeded",
    "InputTooLarge",
    "InvalidConfig",
    "InvalidInput",
    "InvalidKey",
    "LimitExceeded",
    "MediaInvalid",
    "MediaTooLarge",
    "MediaUnreachable",
    "MethodNotAllowed",
    "MissingKey",
    "ModalityNotSupported",
    "ModelNotFound",
    "ModelUnavailable",
    "MonthlyLimitExceeded",
    "Overloaded",
    "PolyvecError",
    "Refused",
    "RequestLimitExceeded",
    "ResourceNotFound",
    "TaskNotFound",
    "TokenLimitExceeded",
    "TokenRateExceeded",
    "Unavailable",
]


class PolyvecError(Exception):
    """`PolyvecError(message)`: something of ours failed; `message` may be shown to a caller."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        """One sentence for a person."""
        return str(self.args[0]) if self.args else type(self).__name__

    @property
    def field(self) -> str | None:
        """The request's field that is at fault, as a dotted path, or None."""
        return None

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which the same request may succeed, or None."""
        return None


class Refused(PolyvecError):
    """`Refused(message, field=None)`: the request cannot be served as it is."""

    code = "INPUT_REFUSED"
    status = 400

    @property
    def field(self) -> str | None:
        """The second argument: the field at fault, where one is."""
        return str(self.args[1]) if len(self.args) > 1 and self.args[1] is not None else None


class BrokenBody(Refused):
    """`BrokenBody(message)`: the body is not JSON."""

    code = "INPUT_INVALID_JSON"


class InvalidInput(Refused):
    """`InvalidInput(message, field, problems=())`: a field has the wrong type or value.

    `problems` are `(field, message, type, input)` tuples, one for each thing found wrong.
    """

    code = "INPUT_INVALID"
    status = 422

    @property
    def problems(self) -> tuple[tuple[str, str, str, object], ...]:
        """Every problem found: `(field, message, type, input)`."""
        if len(self.args) > 2:
            return tuple(self.args[2])
        return ((self.field or "", self.message, "value_error", None),)


class ModelNotFound(Refused):
    """`ModelNotFound(message, field)`: no such model; the message names those there are."""

    code = "INPUT_MODEL_NOT_FOUND"
    status = 404


class TaskNotFound(Refused):
    """`TaskNotFound(message, field)`: the model has no such task; the message names its tasks."""

    code = "INPUT_TASK_NOT_FOUND"


class ModalityNotSupported(Refused):
    """`ModalityNotSupported(message, field)`: an image to a text model, and the like."""

    code = "INPUT_MODALITY_NOT_SUPPORTED"


class TokenLimitExceeded(Refused):
    """`TokenLimitExceeded(message, field)`: an input is longer than the model's context."""

    code = "INPUT_TOKEN_LIMIT_EXCEEDED"


class BodyTooLarge(Refused):
    """`BodyTooLarge(message)`: more bytes than `limits.body_bytes`."""

    code = "INPUT_BODY_TOO_LARGE"
    status = 413


class InputTooLarge(Refused):
    """`InputTooLarge(message, field)`: one input alone does not fit the engine's memory."""

    code = "INPUT_TOO_LARGE_FOR_MEMORY"
    status = 413


class MediaTooLarge(Refused):
    """`MediaTooLarge(message, field)`: more encoded bytes, pixels or pages than are allowed."""

    code = "INPUT_MEDIA_TOO_LARGE"
    status = 413


class MediaInvalid(Refused):
    """`MediaInvalid(message, field)`: no image or document that can be read."""

    code = "INPUT_MEDIA_INVALID"
    status = 422


class MediaUnreachable(Refused):
    """`MediaUnreachable(message, field)`: an address that is not fetched, or does not answer."""

    code = "INPUT_MEDIA_UNREACHABLE"
    status = 422


class BodyTimeout(Refused):
    """`BodyTimeout(message)`: the body did not arrive within `limits.body_timeout_s`."""

    code = "INPUT_BODY_TIMEOUT"
    status = 408


class ResourceNotFound(Refused):
    """`ResourceNotFound(message)`: no such path."""

    code = "RESOURCE_NOT_FOUND"
    status = 404


class MethodNotAllowed(Refused):
    """`MethodNotAllowed(message)`: the path is there, the method is not."""

    code = "METHOD_NOT_ALLOWED"
    status = 405


class MissingKey(Refused):
    """`MissingKey(message)`: no key was sent where one is needed."""

    code = "AUTH_MISSING_API_KEY"
    status = 401


class InvalidKey(Refused):
    """`InvalidKey(message)`: unknown, expired or malformed; the message has "Invalid API key"."""

    code = "AUTH_INVALID_API_KEY"
    status = 401


class Forbidden(Refused):
    """`Forbidden(message, field=None)`: known, but not allowed to use that."""

    code = "AUTHZ_FORBIDDEN"
    status = 403


class LimitExceeded(Refused):
    """`LimitExceeded(message, field, retry_after_s)`: a quota refuses; nothing was charged.

    `retry_after_s` is when the next such request fits; None where it is not soon, nor worth a
    retry.
    """

    code = "RATE_LIMIT_EXCEEDED"
    status = 429

    @property
    def retry_after_s(self) -> float | None:
        """The third argument, or None."""
        return float(self.args[2]) if len(self.args) > 2 and self.args[2] is not None else None


class RequestLimitExceeded(LimitExceeded):
    """See `LimitExceeded`: requests per minute."""

    code = "RATE_REQUEST_LIMIT_EXCEEDED"


class TokenRateExceeded(LimitExceeded):
    """See `LimitExceeded`: tokens per minute."""

    code = "RATE_TOKEN_LIMIT_EXCEEDED"


class ConcurrencyExceeded(LimitExceeded):
    """See `LimitExceeded`: requests at the same time."""

    code = "RATE_CONCURRENCY_LIMIT_EXCEEDED"


class ImageLimitExceeded(LimitExceeded):
    """See `LimitExceeded`: images per minute."""

    code = "RATE_IMAGE_LIMIT_EXCEEDED"


class MonthlyLimitExceeded(LimitExceeded):
    """See `LimitExceeded`: tokens of a calendar month."""

    code = "RATE_MONTHLY_TOKEN_LIMIT_EXCEEDED"


class Unavailable(PolyvecError):
    """`Unavailable(message, retry_after_s=1.0)`: not now; the same request may succeed later."""

    code = "SERVICE_UNAVAILABLE"
    status = 503

    @property
    def retry_after_s(self) -> float | None:
        """The second argument, or one second."""
        return float(self.args[1]) if len(self.args) > 1 else 1.0


class Overloaded(Unavailable):
    """`Overloaded(message, retry_after_s=1.0)`: a queue is full; nothing was taken."""

    code = "SERVICE_OVERLOADED"


class EngineDied(Unavailable):
    """`EngineDied(message, retry_after_s=1.0, taken=False)`: an engine is dead, its process lives.

    `taken` says that this call was in it when it died, and may be why.
    """

    code = "ENGINE_DIED"

    @property
    def taken(self) -> bool:
        """The third argument, or False."""
        return bool(self.args[2]) if len(self.args) > 2 else False


class EngineCrashed(PolyvecError):
    """`EngineCrashed(message)`: replicas died under this request, which is not sent to any more."""

    code = "INPUT_CRASHES_ENGINE"


class DeadlinePassed(PolyvecError):
    """`DeadlinePassed(message)`: the request's time ran out before it was answered."""

    code = "SERVICE_TIMEOUT"
    status = 504


class ModelUnavailable(PolyvecError):
    """`ModelUnavailable(message)`: a checkpoint is missing, half present or not understood."""

    code = "MODEL_UNAVAILABLE"


class InvalidConfig(PolyvecError):
    """`InvalidConfig(message)`: the configuration cannot be served; the message has its key."""

    code = "CONFIG_INVALID"
