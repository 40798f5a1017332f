"""`GET /v1/usage`: who may see what, grouped how, and what a ledger that is down answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import jsonschema_rs
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from starlette.types import Receive, Scope, Send

from serving.api.rendering import TENANT, error_headers, error_value
from serving.api.usage import mount_usage
from serving.errors import PolyvecError
from serving.metering.prices import Prices
from serving.metering.sinks import UsageSink, open_sink
from serving.tenants import LOCAL, Tenant
from tests.postgres import Postgres
from tests.usage import at, event

ACME = Tenant("acme", key_id="key-1")
PRICES = Prices.parse({"minilm": {"text": "0.02"}}, "EUR", 4)
JANUARY = {"from": "2026-01-01", "to": "2026-02-01"}


@dataclass(frozen=True)
class Desk:
    ledger: UsageSink | None
    prices: Prices | None = None


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[UsageSink]:
    sink = open_sink(f"sqlite://{tmp_path}/usage.db")
    sink.write(
        [
            event("a", time=at(9).timestamp(), text_tokens=1_234_567, items=3),
            event("b", time=at(10).timestamp(), task="code", image_tokens=90, modality="mixed"),
            event("c", time=at(10, day=30).timestamp(), text_tokens=500),
            event("d", time=at(10).timestamp(), tenant="zorn", model="clip", text_tokens=7),
            event("e", time=at(11).timestamp(), tenant="zorn", model="clip", status=503),
        ]
    )
    yield sink
    sink.close()


def made(desk: Desk, timeout_s: float = 10.0) -> FastAPI:
    app = FastAPI()
    mount_usage(app, desk, timeout_s)

    @app.exception_handler(PolyvecError)
    async def failed(request: Request, error: PolyvecError) -> JSONResponse:
        headers = {name.decode(): value.decode() for name, value in error_headers(error)}
        return JSONResponse(error_value(error, b"id"), error.status, headers)

    return app


async def ask(
    app: FastAPI, params: dict[str, str] | list[tuple[str, str]], tenant: Tenant = LOCAL
) -> httpx.Response:
    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, TENANT: tenant}, receive, send)

    transport = httpx.ASGITransport(known)
    async with httpx.AsyncClient(transport=transport, base_url="http://polyvec") as http:
        return await http.get("/v1/usage", params=params)


async def test_an_admin_sees_every_tenant_by_day_and_model(ledger: UsageSink) -> None:
    answer = await ask(made(Desk(ledger)), JANUARY)
    assert answer.status_code == 200
    assert answer.json() == {
        "object": "list",
        "from": "2026-01-01T00:00:00Z",
        "to": "2026-02-01T00:00:00Z",
        "by": ["day", "model"],
        "tenant": None,
        "model": None,
        "data": [
            {"day": "2026-01-30", "model": "minilm"} | sums(1, items=1, text=500),
            {"day": "2026-01-31", "model": "clip"} | sums(2, errors=1, items=2, text=17),
            {"day": "2026-01-31", "model": "minilm"} | sums(2, items=4, text=1_234_577, image=90),
        ],
        "total": sums(5, errors=1, items=7, text=1_235_094, image=90),
    }


def sums(
    requests: int, errors: int = 0, items: int = 0, text: int = 0, image: int = 0
) -> dict[str, object]:
    return {
        "requests": requests,
        "errors": errors,
        "items": items,
        "text_tokens": text,
        "image_tokens": image,
        "tokens": text + image,
    }


async def test_a_key_sees_its_own_tenant_and_no_other(ledger: UsageSink) -> None:
    app = made(Desk(ledger))
    own = await ask(app, {**JANUARY, "by": "tenant"}, ACME)
    assert [row["tenant"] for row in own.json()["data"]] == ["acme"]
    assert own.json()["tenant"] == "acme"
    named = await ask(app, {**JANUARY, "by": "tenant", "tenant": "acme"}, ACME)
    assert named.json() == own.json()
    refused = await ask(app, {**JANUARY, "tenant": "zorn"}, ACME)
    assert (refused.status_code, refused.json()["code"]) == (403, "AUTHZ_FORBIDDEN")
    assert refused.json()["error"]["param"] == "tenant"


async def test_an_admin_may_name_a_tenant_and_a_model(ledger: UsageSink) -> None:
    app, whose = made(Desk(ledger)), replace(ACME, admin=True)
    answer = await ask(app, {**JANUARY, "by": "", "tenant": "zorn", "model": "clip"}, whose)
    assert answer.json()["data"] == [sums(2, errors=1, items=2, text=17)]
    none = await ask(app, {**JANUARY, "tenant": "nobody"}, whose)
    assert (none.json()["data"], none.json()["total"]) == ([], sums(0))


async def test_hours_and_every_other_group_are_in_the_rows(ledger: UsageSink) -> None:
    answer = await ask(made(Desk(ledger)), {**JANUARY, "by": "hour,modality,task,tenant"}, ACME)
    groups = [list(row.values())[:4] for row in answer.json()["data"]]
    assert groups == [
        ["2026-01-30T10:00:00Z", "acme", "", "text"],
        ["2026-01-31T09:00:00Z", "acme", "", "text"],
        ["2026-01-31T10:00:00Z", "acme", "code", "mixed"],
    ]


async def test_money_is_a_decimal_string_and_null_without_a_price(ledger: UsageSink) -> None:
    answer = await ask(made(Desk(ledger, PRICES)), {**JANUARY, "by": "tenant,task"})
    report = answer.json()
    assert report["currency"] == "EUR"
    # Image tokens of minilm and all of clip have no price here, so they have no amount.
    assert [row["amount"] for row in report["data"]] == ["0.0247", None, None]
    assert report["total"]["amount"] is None
    text = await ask(made(Desk(ledger, PRICES)), {**JANUARY, "to": "2026-01-31", "by": ""})
    assert text.json()["total"]["amount"] == "0.0000"


async def test_csv_has_the_same_rows(ledger: UsageSink) -> None:
    app = made(Desk(ledger, PRICES))
    answer = await ask(app, {**JANUARY, "by": "day", "format": "csv"}, ACME)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text.split("\r\n") == [
        "day,requests,errors,items,text_tokens,image_tokens,EUR",
        "2026-01-30,1,0,1,500,0,0.0000",
        "2026-01-31,2,0,4,1234577,90,",
        "",
    ]


async def test_without_times_it_is_this_month_up_to_the_next_full_hour(ledger: UsageSink) -> None:
    before = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    report = (await ask(made(Desk(ledger)), {})).json()
    after = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    begins = {f"{hour:%Y-%m}-01T00:00:00Z" for hour in (before, after)}
    ends = {f"{hour + timedelta(hours=1):%Y-%m-%dT%H}:00:00Z" for hour in (before, after)}
    assert report["from"] in begins and report["to"] in ends


async def test_times_may_have_an_offset(ledger: UsageSink) -> None:
    window = {"from": "2026-01-31T11:00:00+02:00", "to": "2026-01-31T12:00+02:00", "by": ""}
    report = (await ask(made(Desk(ledger)), window)).json()
    assert (report["from"], report["total"]["items"]) == ("2026-01-31T09:00:00Z", 3)


@pytest.mark.parametrize(
    ("params", "field", "words"),
    [
        ({"from": "soon"}, "from", "from must be a time of ISO 8601, such as 2026-01-31"),
        ({"to": "2026-01-31T13:30Z"}, "to", "to must be a full hour"),
        ({"from": "0001-01-01T00:00+02:00"}, "from", "from must be a time"),
        ({"from": "2026-02-01", "to": "2026-01-01"}, "from", "from must be before to"),
        ({"by": "colour"}, "by", "by 'colour' is unknown; it may be hour, day, tenant, model"),
        ({"by": "hour,day"}, "by", "by takes hour or day, not both"),
        ({"by": "day,"}, "by", "by '' is unknown"),
        ({"format": "xml"}, "format", "format must be one of json, csv"),
        ({"model": ""}, "model", "model must be a name"),
        ({"model": "a\0"}, "model", "model must be a name"),
        ({"since": "2026-01-01"}, "since", "'since' is unknown; there are from, to, by, model"),
        ([("by", "day"), ("by", "hour")], "by", "by stands twice"),
    ],
)
async def test_what_is_wrong_is_named_with_its_choices(
    params: dict[str, str], field: str, words: str, ledger: UsageSink
) -> None:
    answer = await ask(made(Desk(ledger)), params)
    assert (answer.status_code, answer.json()["code"]) == (422, "INPUT_INVALID")
    assert words in answer.json()["detail"]
    assert answer.json()["error"]["param"] == field


_WORDS = some.sampled_from(["from", "to", "by", "model", "tenant", "format", "x"])
_VALUES = some.one_of(
    some.text(max_size=12),
    some.datetimes().map(datetime.isoformat),
    some.dates().map(str),
    some.sampled_from(["acme", "day", "hour,task", "csv", ""]),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(params=some.dictionaries(_WORDS, _VALUES))
def test_no_question_fails_on_our_side(params: dict[str, str], ledger: UsageSink) -> None:
    answer = asyncio.run(ask(made(Desk(ledger)), params, ACME))
    assert answer.status_code in (200, 403, 422), answer.text


async def test_a_service_without_a_ledger_says_so() -> None:
    answer = await ask(made(Desk(None)), {})
    assert (answer.status_code, answer.json()["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert "keeps no ledger" in answer.json()["detail"]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.resume_or_start()
    server.close()


async def test_a_ledger_that_is_down_or_hangs_is_a_503_until_it_is_back(
    postgres: Postgres,
) -> None:
    url = postgres.make("usage")
    sink = open_sink(url)
    sink.write([event("a")])
    app = made(Desk(sink), timeout_s=0.5)
    postgres.stop()
    down = await ask(app, JANUARY)
    assert (down.status_code, down.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert down.headers["retry-after"] == "5"
    # The address of the ledger is nobody's business.
    assert down.json()["detail"] == "the ledger cannot be read now"
    postgres.start()
    await ask(app, JANUARY)  # which may find a connection of before, now dead
    assert (await ask(app, JANUARY)).status_code == 200
    postgres.pause()
    hanging = await asyncio.gather(*(ask(app, JANUARY) for _ in range(5)))
    assert {answer.status_code for answer in hanging} == {503}
    assert "did not answer within 0.5 seconds" in hanging[0].json()["detail"]
    postgres.resume()
    sink.close()


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize("prices", [None, PRICES])
@pytest.mark.parametrize("by", ["day,model", "hour,tenant,task,modality", ""])
async def test_the_description_is_of_what_is_answered(
    by: str, prices: Prices | None, form: str, ledger: UsageSink
) -> None:
    app = made(Desk(ledger, prices))
    document = app.openapi()
    operation = document["paths"]["/v1/usage"]["get"]
    assert {p["name"] for p in operation["parameters"]} == {
        *("from", "to", "by", "model", "tenant", "format")
    }
    assert set(operation["responses"]) == {"200", "401", "403", "404", "422", "500", "503"}
    answer = await ask(app, {**JANUARY, "by": by, "format": form})
    kind = answer.headers["content-type"].partition(";")[0]
    schema = operation["responses"]["200"]["content"][kind]["schema"]
    if form == "json":
        strict = {**schema, "components": closed(document["components"])}
        jsonschema_rs.validate(strict, answer.json())


def closed(components: dict[str, dict[str, dict[str, object]]]) -> object:
    """The same schemas, with nothing allowed that they do not name."""
    schemas = components["schemas"]
    return {"schemas": {k: {**v, "additionalProperties": False} for k, v in schemas.items()}}
