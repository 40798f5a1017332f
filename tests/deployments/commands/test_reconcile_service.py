"""`polyvec reconcile` against a running service: what it answered is what it billed and counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import orjson
import pytest

from deployments.cli import main
from serving.accounts import Accounts
from serving.api.app import ApiSettings, create_app
from serving.errors import Unavailable
from serving.limits.limiter import Limiter
from serving.limits.stores.memory import MemoryStore
from serving.metering.meter import MeterOptions, open_meter
from serving.telemetry import Telemetry
from serving.telemetry.observers import LedgerMetrics
from serving.telemetry.prometheus import PrometheusBackend
from serving.tenants import open_tenants
from tests.services import HashEngine, able, listening, service, tasked

Captured = pytest.CaptureFixture[str]
PLANS = "plans: {small: {requests_per_minute: 6}}\n"


def new_key(capsys: Captured, file: Path, *words: str) -> str:
    assert main(["keys", "new", *words, "--file", str(file)]) == 0
    return capsys.readouterr().out.removesuffix("\n")


def asks(index: int) -> dict[str, object]:
    if index % 4 == 3:
        return {"model": "tasked", "input": "x", "task": "no such task"}
    if index % 4 == 2:
        return {"model": "able", "input": ["a text", {"text": "another one"}]}
    return {"model": "tasked", "input": ["word " * (index + 1)] * 2, "task": "separation"}


async def run(
    url: str, keys: dict[str, str], engine: HashEngine
) -> tuple[list[dict[str, object]], set[int]]:
    """What clients received over failures, refusals and repeats; and every status there was."""
    received, statuses = list[dict[str, object]](), set[int]()
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        for index in range(24):
            tenant = ("acme", "zorn")[index % 2]
            engine.error = Unavailable("away") if index in (4, 5, 13) else None
            headers = {"authorization": f"Bearer {keys[tenant]}", "idempotency-key": f"k{index}"}
            body = asks(index // 2)
            answer = await http.post("/v1/embeddings", json=body, headers=headers)
            again = await http.post("/v1/embeddings", json=body, headers=headers)
            statuses |= {answer.status_code, again.status_code}
            first = next((one for one in (answer, again) if one.status_code == 200), None)
            if first is None:
                continue
            usage = first.json()["usage"]
            images = usage.get("image_tokens") or 0
            received.append(
                {
                    "tenant": tenant,
                    "model": body["model"],
                    "task": body.get("task"),
                    "text_tokens": usage["total_tokens"] - images,
                    "image_tokens": images,
                }
            )
    return received, statuses


async def test_responses_ledger_and_counters_are_one_number(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tenants.yaml"
    file.write_text(f"{PLANS}tenants: {{acme: {{}}}}\n")
    keys = {
        "acme": new_key(capsys, file, "acme"),
        "zorn": new_key(capsys, file, "zorn", "--create", "--plan", "small"),
    }
    url = f"sqlite://{tmp_path}/usage.db"
    telemetry = Telemetry(PrometheusBackend())
    options = MeterOptions(url, str(tmp_path / "spool"), flush_s=0.001)
    meter = open_meter(options, LedgerMetrics(telemetry))
    accounts = Accounts(open_tenants(file), Limiter(MemoryStore()), meter, telemetry=telemetry)
    engine = HashEngine()
    app = create_app(service(tasked(), able(), engine=engine, accounts=accounts), ApiSettings())
    async with listening(app) as port:
        address = f"http://127.0.0.1:{port}"
        received, statuses = await run(address, keys, engine)
        assert statuses == {200, 400, 429, 503}
        assert await asyncio.to_thread(meter.close)
        rows = tmp_path / "responses.jsonl"
        rows.write_bytes(b"\n".join(map(orjson.dumps, received)))
        words = ["reconcile", "--ledger", url, "--metrics", f"{address}/metrics"]
        assert await asyncio.to_thread(main, words) == 2
        assert "answers 401" in capsys.readouterr().err
        monkeypatch.setenv("POLYVEC_API_KEY", keys["acme"])
        words += ["--responses", str(rows)]
        assert await asyncio.to_thread(main, words) == 0, capsys.readouterr()
        tokens = sum(int(str(row["text_tokens"])) for row in received)
        assert f"ledger, counters, responses agree: {tokens} tokens" in capsys.readouterr().out
        rows.write_bytes(rows.read_bytes().partition(b"\n")[2])
        assert await asyncio.to_thread(main, words) == 1
    await accounts.close()
