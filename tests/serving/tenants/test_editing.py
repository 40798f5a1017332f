"""`polyvec keys`: what an edit makes of a tenants file."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from serving.errors import InvalidConfig
from serving.tenants.editing import add_key, edit_file, list_keys, revoke_key
from serving.tenants.file import FileDirectory
from serving.tenants.keys import new_key, parse_key
from serving.tenants.schema import read_yaml
from tests.tenants import entry, file_of, moment

NOW = moment("2026-06-01T12:00:00Z")
LATER = moment("2027-01-01T00:00:00Z")


def test_a_new_key_opens_the_door_and_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    made = edit_file(path, lambda text: add_key(text, "acme", NOW, name="ci", create=True))
    assert made.secret[13:] not in path.read_text() + repr(made)
    parsed = parse_key(made.secret)
    assert parsed is not None and parsed.id == made.id
    assert FileDirectory(path).identify(f"Bearer {made.secret}").key_id == made.id


def test_a_key_for_an_unknown_tenant_is_refused_unless_it_is_to_be_made() -> None:
    with pytest.raises(InvalidConfig, match="no tenant 'umbra'; the tenants are acme"):
        add_key(file_of({"acme": {}}), "umbra", NOW)
    text, _ = add_key(file_of({"acme": {}}, {"free": {}}), "umbra", NOW, plan="free", create=True)
    assert "plan: free" in text


def test_what_an_edit_would_break_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="no plan 'gold'"):
        add_key(file_of({"acme": {}}), "umbra", NOW, plan="gold", create=True)
    with pytest.raises(InvalidConfig, match="acme has another plan"):
        add_key(file_of({"acme": {}}, {"gold": {}}), "acme", NOW, plan="gold")
    with pytest.raises(InvalidConfig, match="expires is not after"):
        add_key(file_of({"acme": {}}), "acme", NOW, not_before=LATER, expires=NOW)
    with pytest.raises(InvalidConfig, match="an id has"):
        add_key("", "Acme Ltd", NOW, create=True)
    with pytest.raises(InvalidConfig, match="unknown key"):
        add_key("tenants: {acme: {plann: x}}", "acme", NOW)


def test_what_an_edit_does_not_touch_stays() -> None:
    first = entry(new_key(), expires=LATER)
    text = file_of({"acme": {"name": "Ä", "keys": [first]}}, {"p": {"monthly_tokens": None}})
    before, after = read_yaml(text), read_yaml(add_key(text, "acme", NOW)[0])
    assert isinstance(after, dict) and after != before
    after["tenants"]["acme"]["keys"].pop()
    assert after == before


def test_a_revoked_key_stays_listed_and_shuts_the_door() -> None:
    text, made = add_key("", "acme", NOW, create=True, name="ci", expires=LATER)
    [row] = list_keys(text, NOW)
    assert (row.tenant, row.id, row.name, row.state) == ("acme", made.id, "ci", "active")
    assert (row.created, row.expires) == (NOW, LATER)
    [row] = list_keys(revoke_key(text, made.id), NOW)
    assert (row.id, row.state) == (made.id, "revoked")
    with pytest.raises(InvalidConfig, match="no key 'gone'"):
        revoke_key(text, "gone")


def test_the_list_says_which_keys_count() -> None:
    def state(**more: object) -> str:
        tenant = {"disabled": more.pop("off", False), "keys": [entry(new_key(), **more)]}
        [row] = list_keys(file_of({"acme": tenant}), NOW)
        return row.state

    assert state(off=True) == "off"
    assert state(expires=NOW) == "expired"
    assert state(not_before=LATER) == "early"
    assert state(not_before=NOW, expires=LATER) == "active"


def test_the_file_is_written_at_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(file_of({"acme": {}}))
    path.chmod(0o644)
    before = path.stat().st_ino
    edit_file(path, lambda text: add_key(text, "acme", NOW))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_ino != before
    assert os.listdir(tmp_path) == ["tenants.yaml"]


def test_a_refused_edit_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(file_of({"acme": {}}))
    before = path.read_bytes(), path.stat().st_ino
    with pytest.raises(InvalidConfig):
        edit_file(path, lambda text: (revoke_key(text, "gone"), None))
    assert (path.read_bytes(), path.stat().st_ino) == before
    assert os.listdir(tmp_path) == ["tenants.yaml"]


def test_a_symlink_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text(file_of({"acme": {}}))
    (tmp_path / "tenants.yaml").symlink_to("real.yaml")
    edit_file(tmp_path / "tenants.yaml", lambda text: add_key(text, "acme", NOW))
    assert (tmp_path / "tenants.yaml").is_symlink()
    assert len(list_keys((tmp_path / "real.yaml").read_text(), NOW)) == 1


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="No such file"):
        edit_file(tmp_path / "no" / "tenants.yaml", lambda text: (text, None))
    (tmp_path / "tenants.yaml").write_bytes(b"\xff")
    with pytest.raises(InvalidConfig, match="not UTF-8"):
        edit_file(tmp_path / "tenants.yaml", lambda text: (text, None))


def test_two_edits_at_a_time_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(file_of({"acme": {}}))

    def add() -> None:
        for _ in range(5):
            edit_file(path, lambda text: add_key(text, "acme", NOW))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list_keys(path.read_text(), NOW)) == 20
