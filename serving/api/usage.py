"""`GET /v1/usage`: what the ledger holds of the caller's tenant, or, to an admin, of any."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Literal, Protocol

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from serving.api.describe import Described, error_responses
from serving.api.rendering import TENANT
from serving.errors import Forbidden, InvalidInput, ResourceNotFound, Unavailable
from serving.metering.asking import BY_DEFAULT, asked
from serving.metering.prices import Charge, Prices, charges, total
from serving.metering.questions import BY, DIMENSIONS, Question
from serving.metering.sinks import UsageSink
from serving.metering.tables import as_csv
from serving.tenants import Tenant

__all__ = ["Desk", "UsageEntry", "UsageReport", "UsageTotals", "mount_usage"]

log = logging.getLogger(__name__)

_THREADS = 2  # its own: a ledger that hangs must not hold the threads that others wait for
_RETRY_S = 5.0
_FORMS = {"json": "application/json", "csv": "text/csv; charset=utf-8"}


class Desk(Protocol):
    """Where usage is asked for."""

    @property
    def ledger(self) -> UsageSink | None:
        """What is asked; None where none is kept."""
        ...

    @property
    def prices(self) -> Prices | None:
        """What turns tokens into money, if anything does."""
        ...


class UsageTotals(BaseModel):
    """Sums over requests. Tokens are those that are billed."""

    requests: int
    errors: int = Field(description="Requests whose status was 400 or above.")
    items: int
    text_tokens: int
    image_tokens: int
    tokens: int = Field(description="Text and image tokens together.")
    amount: str | None = Field(
        None,
        description="A decimal, where prices are configured; null where some of these tokens have "
        "none. The total is the rounded sum of the exact amounts.",
    )


class UsageEntry(UsageTotals):
    """The sums of one group; what `by` does not name is left out."""

    hour: str | None = Field(None, description="Its beginning: `2026-01-31T13:00:00Z`.")
    day: str | None = Field(None, description="A day of UTC: `2026-01-31`.")
    tenant: str | None = None
    model: str | None = None
    task: str | None = Field(None, description="Empty where the model has no tasks.")
    modality: Literal["text", "image", "mixed"] | None = Field(
        None, description="What the requests held."
    )


class UsageReport(BaseModel):
    """What was used in the hours from `from` to before `to`."""

    object: Literal["list"]
    since: str = Field(alias="from")
    until: str = Field(alias="to")
    by: list[str]
    tenant: str | None = Field(description="The one tenant of it, or null for all.")
    model: str | None = Field(description="The one model of it, or null for all.")
    currency: str | None = Field(None, description="Of the amounts, where prices are configured.")
    data: list[UsageEntry] = Field(description="In order of time and then of names.")
    total: UsageTotals


def mount_usage(app: FastAPI, desk: Desk, timeout_s: float = 10.0) -> None:
    """The route. A ledger that does not answer within `timeout_s` is a 503."""
    threads = ThreadPoolExecutor(_THREADS, "usage")

    async def usage(request: Request) -> Response:
        """Tokens, items and requests by time, model, task, modality and tenant; and their price.

        A key sees its own tenant; an admin's sees all tenants, or the one that `tenant` names.
        """
        if desk.ledger is None:
            raise ResourceNotFound("this service keeps no ledger; its config has none")
        question, form = _question(request)
        reading = asyncio.get_running_loop().run_in_executor(
            threads, _WRITERS[form], desk.ledger, question, desk.prices
        )
        try:
            body = await asyncio.wait_for(reading, timeout_s)
        except TimeoutError:
            late = f"the ledger did not answer within {timeout_s:g} seconds"
            raise Unavailable(late, _RETRY_S) from None
        except Unavailable as down:  # its words have an address of ours
            log.warning("usage cannot be read: %s", down.message)
            raise Unavailable("the ledger cannot be read now", _RETRY_S) from None
        return Response(body, media_type=_FORMS[form])

    app.add_api_route(
        "/v1/usage",
        usage,
        summary="Show usage",
        tags=["Usage"],
        operation_id="show_usage",
        response_class=Response,
        responses={
            200: {"model": UsageReport, "content": {"text/csv": {"schema": {"type": "string"}}}},
            **error_responses(401, 403, 404, 422, 500, 503),
        },
        openapi_extra={"parameters": _PARAMETERS},
    )


def _question(request: Request) -> tuple[Question, str]:
    """What is asked for, in which form. Raises `InvalidInput` and `Forbidden`."""
    words: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in _FIELDS:
            raise InvalidInput(f"{name!r} is unknown; there are {', '.join(_FIELDS)}", name)
        if name in words:
            raise InvalidInput(f"{name} stands twice", name)
        words[name] = value
    form = words.pop("format", "json")
    if form not in _FORMS:
        raise InvalidInput(f"format must be one of {', '.join(_FORMS)}", "format")
    tenant: Tenant = request.scope[TENANT]
    if not tenant.admin and words.setdefault("tenant", tenant.id) != tenant.id:
        raise Forbidden("this API key may ask for the usage of its own tenant only", "tenant")
    return asked(words, datetime.now(UTC)), form


def _json(ledger: UsageSink, question: Question, prices: Prices | None) -> bytes:
    found = charges(ledger, question, prices or Prices({}))
    report = {
        "object": "list",
        "from": _hour(question.since),
        "to": _hour(question.until),
        "by": question.by,
        "tenant": question.tenant,
        "model": question.model,
        **({"currency": prices.currency} if prices else {}),
        "data": [_group(question, charge) | _sums(charge, prices) for charge in found],
        "total": _sums(total(found), prices),
    }
    return orjson.dumps(report)


def _csv(ledger: UsageSink, question: Question, prices: Prices | None) -> bytes:
    return as_csv(question, charges(ledger, question, prices or Prices({})), prices).encode()


_WRITERS: Mapping[str, Callable[[UsageSink, Question, Prices | None], bytes]] = {
    "json": _json,
    "csv": _csv,
}


def _group(question: Question, charge: Charge) -> dict[str, object]:
    row, group = charge.row, dict[str, object]()
    if row.start is not None:
        hourly = "hour" in question.by
        group = {"hour": _hour(row.start)} if hourly else {"day": row.start.date().isoformat()}
    return group | {name: getattr(row, name) for name in DIMENSIONS if name in question.by}


def _sums(charge: Charge, prices: Prices | None) -> dict[str, object]:
    totals = charge.row.totals
    sums: dict[str, object] = {
        "requests": totals.requests,
        "errors": totals.errors,
        "items": totals.items,
        "text_tokens": totals.text_tokens,
        "image_tokens": totals.image_tokens,
        "tokens": totals.tokens,
    }
    return sums | ({"amount": prices.shown(charge.amount) or None} if prices else {})


def _hour(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _parameter(name: str, description: str, **schema: object) -> Described:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": "string", **schema},
    }


_PARAMETERS = [
    _parameter(
        "from",
        "ISO 8601, a full hour; UTC where it has no offset. Default: the first of this month.",
        examples=["2026-01-01", "2026-01-31T13:00Z"],
    ),
    _parameter("to", "The first hour that is not in it, likewise. Default: the next full hour."),
    _parameter(
        "by",
        f"What to group by: a comma list of {', '.join(BY)}. Empty: nothing, one row.",
        default=BY_DEFAULT,
        examples=["hour,task", "tenant,model"],
    ),
    _parameter("model", "One model, by its id."),
    _parameter("tenant", "One tenant. Only an admin's key may name another than its own."),
    _parameter("format", "JSON, or CSV without the total.", enum=list(_FORMS), default="json"),
]
_FIELDS = tuple(str(parameter["name"]) for parameter in _PARAMETERS)
