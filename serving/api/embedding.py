"""What the dialects of embedding share: an ask, of a model as its caller names it, answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from serving.api.fields import Fields, Refusal, refuse
from serving.api.models import find
from serving.api.routes import Body
from serving.calls import Call
from serving.errors import InvalidInput
from serving.models.spec import ModelSpec
from serving.service import Service
from serving.values import Answer, Ask

__all__ = ["check_whole", "cuts", "embed", "with_model"]


async def embed(
    service: Service, call: Call, ask: Ask, refusals: Sequence[Refusal] = ()
) -> tuple[ModelSpec, Answer]:
    """The model that was meant, and its answer.

    Raises the first of `refusals`, which no model can do; else what `Service.embed` does.
    """
    spec = find(service.catalog, ask.model)
    refuse(refusals, spec.id)
    return spec, await service.embed(call, replace(ask, model=spec.id))


def with_model(service: Service, body: Body) -> Body:
    """The body; where it names no model, of the configuration's first one."""
    if body.get("model") is not None:
        return body
    return {**body, "model": service.catalog.specs[0].id}


def cuts(spec: ModelSpec, most: int | None) -> bool:
    """Whether vLLM's `truncate_prompt_tokens` asks to cut what is too long.

    mteb copies the model's context into it. Raises `InvalidInput` for less than that.
    """
    if most is not None and 0 <= most < spec.max_tokens:
        name = "truncate_prompt_tokens"
        raise InvalidInput(
            f"{spec.id} truncates to its {spec.max_tokens} tokens only; {name} may be -1", name
        )
    return most is not None


def check_whole(fields: Fields) -> None:
    """Note as a problem that a text's tokens are asked for without those that are added to it."""
    name = "add_special_tokens"
    if not fields.flag(name, True):
        message = "may be true: the tokens are those that the model sees, and that are charged for"
        fields.problem(name, message, "enum", False)
