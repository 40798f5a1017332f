"""`polyvec keys`: what it prints where, what it writes, what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployments.cli import main
from serving.errors import InvalidKey
from serving.tenants import open_tenants
from serving.tenants.editing import list_keys
from serving.tenants.keys import parse_key
from tests.tenants import file_of

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tenants.yaml"
    path.write_text(file_of({"acme": {"name": "Acme Ltd"}}, {"free": {"requests_per_minute": 9}}))
    return path


def new(capsys: Captured, *words: str) -> str:
    assert main(["keys", "new", *words]) == 0
    return capsys.readouterr().out.removesuffix("\n")


def told(capsys: Captured, *words: str) -> str:
    assert main(["keys", *words]) == 2
    return " ".join(capsys.readouterr().err.split())


def identified(file: Path, key: str) -> str:
    directory = open_tenants(file)
    try:
        return directory.identify(f"Bearer {key}").id
    finally:
        directory.close()


def test_the_key_alone_is_on_stdout_and_lets_its_tenant_in(file: Path, capsys: Captured) -> None:
    assert main(["keys", "new", "acme", "--file", str(file), "--expires", "30d"]) == 0
    captured = capsys.readouterr()
    key = captured.out.removesuffix("\n")
    known = parse_key(key)
    assert known is not None
    assert identified(file, key) == "acme"
    assert f"key {known.id} of acme, until " in captured.err
    assert key not in captured.err and key not in file.read_text()


def test_times_are_dates_or_spans_from_now(file: Path, capsys: Captured) -> None:
    now = datetime.now(UTC)
    new(capsys, "acme", "--file", str(file), "--not-before", "12h", "--expires", "2999-01-31")
    [row] = list_keys(file.read_text(), now)
    assert row.expires == datetime(2999, 1, 31, tzinfo=UTC)
    assert row.not_before is not None
    assert timedelta(hours=11.9) < row.not_before - now < timedelta(hours=12.1)


def test_create_makes_the_tenant_and_the_file(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "tenants.yaml"
    key = new(capsys, "zorn", "--file", str(path), "--create", "--name", "laptop")
    assert identified(path, key) == "zorn"
    assert path.stat().st_mode & 0o777 == 0o600


def test_list_shows_every_key_with_its_state_and_no_hash(file: Path, capsys: Captured) -> None:
    for name in ("one[1]", "two"):
        new(capsys, "acme", "--file", str(file), "--name", name)
    assert main(["keys", "list", "--file", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["tenant", "key", "state", "name"]
    assert [line.split()[2:4] for line in lines[1:]] == [["active", "one[1]"], ["active", "two"]]
    assert "hs256" not in "".join(lines)


def test_a_revoked_key_lets_nobody_in_and_stays_listed(file: Path, capsys: Captured) -> None:
    key = new(capsys, "acme", "--file", str(file))
    known = parse_key(key)
    assert known is not None
    assert main(["keys", "revoke", known.id, "--file", str(file)]) == 0
    with pytest.raises(InvalidKey, match="revoked"):
        identified(file, key)
    assert [row.state for row in list_keys(file.read_text(), datetime.now(UTC))] == ["revoked"]


def test_the_file_may_be_named_by_a_config(file: Path, tmp_path: Path, capsys: Captured) -> None:
    config = tmp_path / "polyvec.yaml"
    config.write_text(f"tenants: {file}\n")
    assert identified(file, new(capsys, "acme", "--config", str(config))) == "acme"
    config.write_text("{}\n")
    assert "names no tenants file" in told(capsys, "list", "--config", str(config))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["new", "nobody"], "there is no tenant 'nobody'; the tenants are acme"),
        (["new", "acme", "--plan", "gold"], "acme has another plan already"),
        (["new", "acme", "--expires", "soon"], "--expires: 'soon' is no time; write 2027-01-31"),
        (["new", "acme", "--expires", "2020-01-01"], "--expires: 2020-01-01 has passed already"),
        (["new", "acme", "--not-before", "9d", "--expires", "1d"], "expires is not after not_b"),
        (["new", "BAD", "--create"], "tenants.BAD: an id has up to 63 of a-z"),
        (["revoke", "none"], "there is no key 'none' in the file"),
    ],
)
def test_what_is_refused_leaves_the_file_as_it_was(
    words: list[str], sentence: str, file: Path, capsys: Captured
) -> None:
    before = file.read_bytes()
    assert sentence in told(capsys, *words, "--file", str(file))
    assert file.read_bytes() == before


@pytest.mark.parametrize("words", [["list"], ["revoke", "x"], ["new", "acme"]])
def test_a_file_that_is_not_there_is_not_made(
    words: list[str], tmp_path: Path, capsys: Captured
) -> None:
    path = tmp_path / "tenants.yaml"
    assert "no such file; keys new --create makes one" in told(capsys, *words, "--file", str(path))
    assert not path.exists()


def test_the_file_must_be_named(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as left:
        main(["keys", "list"])
    assert left.value.code == 2
    assert "one of the arguments --file --config is required" in capsys.readouterr().err
