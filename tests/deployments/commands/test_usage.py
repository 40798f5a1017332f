"""`polyvec usage`: a ledger's rows as a table and as CSV, from a file, a database or a service."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from deployments.cli import main
from serving.api.rendering import TENANT
from serving.api.usage import mount_usage
from serving.metering.prices import Prices
from serving.metering.sinks import UsageSink, open_sink
from serving.tenants import LOCAL, Tenant
from tests.billing import Billing
from tests.deployments.commands.conftest import fill
from tests.postgres import Postgres
from tests.services import listening
from tests.usage import event

Captured = pytest.CaptureFixture[str]
JANUARY = ("--from", "2026-01-01", "--to", "2026-02-01")
PRICES = Prices.parse({"minilm": {"text": "0.02", "image": "0.05"}}, "EUR", 4)


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


def refused(capsys: Captured, *words: str) -> str:
    assert main(["usage", *words]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_table_has_a_row_a_day_and_model_and_the_total(url: str, capsys: Captured) -> None:
    assert main(["usage", "--ledger", url, *JANUARY]) == 0
    assert cells(capsys.readouterr().out) == [
        ["2026-01-01", "00:00Z", "to", "2026-02-01", "00:00Z"],
        ["day", "model", "requests", "errors", "items", "text_tokens", "image_tokens"],
        ["2026-01-31", "clip", "2", "1", "2", "7", "0"],
        ["2026-01-31", "minilm", "2", "0", "4", "1000500", "90"],
        ["total", "4", "1", "6", "1000507", "90"],
    ]


def test_money_is_shown_where_the_config_has_prices(config: Path, capsys: Captured) -> None:
    words = ["usage", "--config", str(config), *JANUARY, "--model", "minilm", "--by", "task"]
    assert main(words) == 0
    rows = cells(capsys.readouterr().out)
    assert rows[1][-1] == "EUR"
    # 500 text tokens at 0.02 and 90 image tokens at 0.05 a million are 0.0000145.
    assert [row[-1] for row in rows[2:]] == ["0.0200", "0.0000", "0.0200"]


def test_csv_is_rows_alone(config: Path, capsys: Captured) -> None:
    words = ["usage", "--config", str(config), *JANUARY, "--by", "hour,tenant", "--csv"]
    assert main(words) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0][:3] == ["hour", "tenant", "requests"] and rows[0][-1] == "EUR"
    assert rows[1][:3] == ["2026-01-31T09:00Z", "acme", "1"] and rows[1][-1] == "0.0200"
    assert rows[3][:2] == ["2026-01-31T10:00Z", "zorn"] and rows[3][-1] == ""
    assert len(rows) == 4


def test_one_tenant_and_no_grouping_is_one_row(url: str, capsys: Captured) -> None:
    words = ["usage", "--ledger", url, *JANUARY, "--tenant", "zorn", "--by", ""]
    assert main(words) == 0
    assert cells(capsys.readouterr().out)[2:] == [["2", "1", "2", "7", "0"]] * 2


def test_without_times_it_is_this_month_up_to_now(tmp_path: Path, capsys: Captured) -> None:
    url = f"sqlite://{tmp_path}/now.db"
    sink = open_sink(url)
    sink.write([event("now", time=datetime.now(UTC).timestamp()), event("long ago")])
    sink.close()
    assert main(["usage", "--ledger", url, "--by", "model"]) == 0
    assert cells(capsys.readouterr().out)[2] == ["minilm", "1", "0", "1", "10", "0"]


def test_postgresql_and_jsonl_are_read_as_well(
    postgres: Postgres, tmp_path: Path, capsys: Captured
) -> None:
    for url in (fill(postgres.make("usage")), fill(f"jsonl://{tmp_path}/usage.jsonl")):
        assert main(["usage", "--ledger", url, *JANUARY]) == 0
        assert cells(capsys.readouterr().out)[-1] == ["total", "4", "1", "6", "1000507", "90"]


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "typo.db"
    assert f"there is no ledger at {path}" in refused(capsys, "--ledger", f"sqlite://{path}")
    assert not path.exists()


def test_a_ledger_that_is_down_is_one_sentence(tmp_path: Path, capsys: Captured) -> None:
    away = f"postgresql://postgres@/usage?host={tmp_path}"
    assert "the ledger in PostgreSQL cannot be used" in refused(capsys, "--ledger", away)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--by", "colour"], "by 'colour' is unknown; it may be hour, day, tenant"),
        (["--from", "yesterday"], "from must be a time of ISO 8601, such as 2026-01-31"),
        (["--from", "2026-01-01T00:30Z"], "from must be a full hour"),
        (["--from", "0001-01-01T00:00+05:00"], "from must be a time of ISO 8601"),
        (["--from", "2999-01-01"], "from must be before to"),
        (["--tenant", ""], "tenant must be a name of 1 to 256 visible characters"),
        (["--ledger", "mysql://x"], "ledger.url begins with 'mysql'; it may begin with jsonl://"),
        (["--url", "nowhere"], "'nowhere/v1/usage' is no address that can be asked"),
        (["--url", "http://127.0.0.1:1"], "http://127.0.0.1:1/v1/usage does not answer"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    words: list[str], sentence: str, capsys: Captured
) -> None:
    assert sentence in refused(capsys, *words)


def test_a_config_without_a_ledger_says_so(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "polyvec.yaml"
    path.write_text("ledger: null\n")
    assert f"{path} keeps no ledger" in refused(capsys, "--config", str(path))


@dataclass(frozen=True)
class Desk:
    ledger: UsageSink | None
    prices: Prices | None


Serve = Callable[[Prices | None], FastAPI]


@pytest.fixture
def app(url: str) -> Iterator[Serve]:
    """The route over the ledger, for an admin."""
    sink = open_sink(url)

    def made(prices: Prices | None) -> FastAPI:
        app = FastAPI()
        mount_usage(app, Desk(sink, prices))
        return app

    yield made
    sink.close()


async def asked(app: FastAPI, *words: str, tenant: Tenant = LOCAL) -> int:
    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, TENANT: tenant}, receive, send)

    async with listening(known) as port:
        url = f"http://127.0.0.1:{port}"
        return await asyncio.to_thread(main, ["usage", "--url", url, *words])


@pytest.mark.parametrize("prices", [None, PRICES])
@pytest.mark.parametrize("by", ["day,model", "modality,tenant,task", ""])
async def test_a_service_shows_the_same_table_as_its_ledger(
    prices: Prices | None, by: str, app: Serve, url: str, config: Path, capsys: Captured
) -> None:
    assert await asked(app(prices), *JANUARY, "--by", by) == 0
    remote = capsys.readouterr().out
    where = ["--config", str(config)] if prices else ["--ledger", url]
    assert main(["usage", *where, *JANUARY, "--by", by]) == 0
    assert remote == capsys.readouterr().out


async def test_a_service_gives_the_same_csv_as_its_ledger(
    app: Serve, config: Path, capsys: Captured
) -> None:
    assert await asked(app(PRICES), *JANUARY, "--csv") == 0
    remote = capsys.readouterr().out
    assert main(["usage", "--config", str(config), *JANUARY, "--csv"]) == 0
    assert remote == capsys.readouterr().out


async def test_the_key_of_the_environment_is_sent_and_a_401_names_it(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    app = FastAPI()

    @app.get("/v1/usage")
    async def refuse(request: Request) -> JSONResponse:
        sent.append(request.headers["authorization"])
        return JSONResponse({"detail": "Invalid API key"}, 401)

    monkeypatch.setenv("POLYVEC_API_KEY", "pv_secret")
    async with listening(app) as port:
        words = ["usage", "--url", f"http://127.0.0.1:{port}"]
        assert await asyncio.to_thread(main, words) == 2
    assert sent == ["Bearer pv_secret"]
    told = capsys.readouterr().err
    assert "answers 401: Invalid API key ($POLYVEC_API_KEY)" in " ".join(told.split())
    assert "pv_secret" not in told


async def test_a_key_sees_its_own_tenant(app: Serve, capsys: Captured) -> None:
    zorn = replace(LOCAL, id="zorn", admin=False)
    assert await asked(app(None), *JANUARY, "--by", "tenant", tenant=zorn) == 0
    assert [row[0] for row in cells(capsys.readouterr().out)[2:]] == ["zorn", "total"]


@pytest.fixture
def other() -> Iterator[Billing]:
    """A server that is no Polyvec."""
    server = Billing()
    yield server
    server.close()


def test_a_server_that_is_no_polyvec_is_one_sentence(other: Billing, capsys: Captured) -> None:
    assert "answers 501" in refused(capsys, "--url", other.url)
