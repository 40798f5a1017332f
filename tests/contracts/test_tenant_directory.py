"""The promises of `TenantDirectory`: a tenant, or one of two refusals, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from serving.errors import InvalidKey, MissingKey
from serving.tenants import Tenant, TenantDirectory, open_tenants
from serving.tenants.keys import new_key
from tests.tenants import bearer, entry, file_of

KEY = new_key()
SCHEMES = some.sampled_from(["", "Bearer", "bearer ", "Basic", "Bearer Bearer", " ", "\t", "Token"])
TEXTS = some.one_of(
    some.text(),
    some.text(alphabet=some.characters(), max_size=80),
    some.sampled_from([KEY.text, KEY.text[:-1], KEY.text * 2, "pv_" + "é" * 48, "\ud800"]),
    some.integers(0, 200_000).map("A".__mul__),
)
VALUES = some.one_of(some.none(), some.binary(), TEXTS, some.builds("{} {}".format, SCHEMES, TEXTS))


@pytest.fixture(scope="module", params=["local", "file"])
def directory(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TenantDirectory]:
    path: Path | None = None
    if request.param == "file":
        path = tmp_path_factory.mktemp("tenants") / "tenants.yaml"
        path.write_text(file_of({"acme": {"keys": [entry(KEY)]}}))
    opened = open_tenants(path)
    yield opened
    opened.close()


@given(VALUES, VALUES)
@example(f"Bearer  {KEY.text} ", b"\x00\xff")
def test_any_header_is_a_tenant_or_one_of_two_refusals(
    directory: TenantDirectory, authorization: str | bytes | None, api_key: str | bytes | None
) -> None:
    try:
        tenant = directory.identify(authorization, api_key)
    except (MissingKey, InvalidKey) as wrong:
        refused: MissingKey | InvalidKey = wrong
    else:
        assert isinstance(tenant, Tenant)
        return
    assert refused.status == 401
    assert isinstance(refused, MissingKey) or "Invalid API key" in refused.message
    assert KEY.text[13:45] not in refused.message


def test_a_refusal_is_not_remembered_and_does_no_harm(directory: TenantDirectory) -> None:
    known = directory.identify(bearer(KEY))
    with suppress(InvalidKey):
        directory.identify(bearer(new_key()))
    assert directory.identify(bearer(KEY)) is known


def test_it_answers_after_it_was_closed(directory: TenantDirectory) -> None:
    directory.close()
    directory.close()
    assert directory.identify(bearer(KEY)).id in ("local", "acme")
    assert directory.state().problem is None
