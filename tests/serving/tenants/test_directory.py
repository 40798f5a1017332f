"""Which header has the key, and what is said where none has."""

from __future__ import annotations

import pytest

from serving.errors import InvalidKey, MissingKey
from serving.tenants import LOCAL, open_tenants
from serving.tenants.directory import presented


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        ("Bearer KEY", None),
        (b"Bearer KEY", None),
        ("bearer KEY", None),
        ("BEARER   KEY ", None),
        (" Bearer KEY\t", None),
        (None, "KEY"),
        (None, b" KEY "),
        ("", "KEY"),
        ("Bearer ", "KEY"),
        ("Basic dXNlcjpwYXNz", "KEY"),
        ("Bearer KEY", "another"),
    ],
)
def test_the_key_is_found(authorization: str | bytes | None, api_key: str | bytes | None) -> None:
    assert presented(authorization, api_key) == "KEY"


@pytest.mark.parametrize("authorization", [None, "", "   ", "Bearer", "Bearer ", b"bearer   "])
def test_no_key_is_missing(authorization: str | bytes | None) -> None:
    with pytest.raises(MissingKey, match="Authorization: Bearer"):
        presented(authorization)


@pytest.mark.parametrize(
    "authorization",
    ["Basic dXNlcjpwYXNz", "pv_KEY", "Bearer\tKEY", "Bearer é", "Bearer " + "A" * 9999],
)
def test_another_form_is_invalid(authorization: str) -> None:
    with pytest.raises(InvalidKey, match="Invalid API key"):
        presented(authorization)


def test_without_a_file_everyone_is_the_local_tenant() -> None:
    directory = open_tenants(None)
    assert directory.identify(None) is directory.identify("Bearer whatever") is LOCAL
    assert directory.state().problem is None
    directory.close()
