"""The directory in a file: who is known by which key, and what becomes of a file that changes."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from serving.errors import InvalidConfig, InvalidKey
from serving.tenants import open_tenants
from serving.tenants.file import FileDirectory
from serving.tenants.keys import Key, new_key
from tests.tenants import bearer, entry, file_of, moment

NOON = moment("2026-06-01T12:00:00Z").timestamp()


@pytest.fixture
def key() -> Key:
    return new_key()


@pytest.fixture
def path(tmp_path: Path, key: Key) -> Path:
    """A file in which `key` is acme's."""
    file = tmp_path / "tenants.yaml"
    file.write_text(file_of({"acme": {"keys": [entry(key)]}}))
    return file


def looks(directory: FileDirectory) -> None:
    """Two looks: a change is read when it is seen for the second time."""
    directory.look()
    directory.look()


def known(directory: FileDirectory, key: Key) -> bool:
    try:
        return directory.identify(bearer(key)).id == "acme"
    except InvalidKey:
        return False


def test_a_tenant_is_known_by_each_of_its_keys(tmp_path: Path) -> None:
    old, new, theirs = new_key(), new_key(), new_key()
    file = tmp_path / "tenants.yaml"
    file.write_text(
        file_of({"acme": {"keys": [entry(old), entry(new)]}, "umbra": {"keys": [entry(theirs)]}})
    )
    directory = FileDirectory(file)
    for _ in range(2):  # verified, then remembered
        assert [directory.identify(bearer(k)).key_id for k in (old, new)] == [old.id, new.id]
        assert directory.identify(None, new.text.encode()).id == "acme"
        assert directory.identify(bearer(theirs)).id == "umbra"
    state = directory.state()
    assert (state.tenants, state.keys, state.problem) == (2, 3, None)


def test_a_key_that_was_known_is_recalled_for_as_long_as_it_counts(path: Path, key: Key) -> None:
    now = NOON
    directory = FileDirectory(path, clock=lambda: now)
    assert directory.recall("acme", key.id) == directory.identify(bearer(key))
    for tenant, identifier in (("acme", "other"), ("umbra", key.id)):
        with pytest.raises(InvalidKey, match="it is not known here"):
            directory.recall(tenant, identifier)
    for more, said in (({"disabled": True}, "revoked"), ({"expires": "2026-06-01"}, "expired")):
        path.write_text(file_of({"acme": {"keys": [entry(key, **more)]}}))
        looks(directory)
        with pytest.raises(InvalidKey, match=said):
            directory.recall("acme", key.id)


def test_an_unknown_key_and_a_wrong_secret_are_refused_alike(path: Path, key: Key) -> None:
    directory = FileDirectory(path)
    forged = next(k for k in iter(new_key, None) if k.id != key.id)
    for wrong in (forged, _with_id(key)):
        with pytest.raises(InvalidKey, match=r"^Invalid API key: it is not known here$"):
            directory.identify(bearer(wrong))


def _with_id(key: Key) -> Key:
    """A key of the same id with another secret, its checksum right."""
    from serving.tenants import keys

    body = key.id + new_key().text[13:45]
    return Key(key.id, f"pv_{body}{keys._checksum(body)}")


def test_a_typo_is_said_to_be_one(path: Path, key: Key) -> None:
    with pytest.raises(InvalidKey, match="Invalid API key: it has a typo"):
        FileDirectory(path).identify(f"Bearer {key.text[:-1]}")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"not_before": "2026-06-01T12:00:01Z"}, "it counts from 2026-06-01 12:00:01 UTC on"),
        ({"expires": "2026-06-01T12:00:00Z"}, "it expired on 2026-06-01 12:00:00 UTC"),
        ({"disabled": True}, "it was revoked"),
    ],
)
def test_a_key_that_does_not_count_is_refused(
    path: Path, key: Key, more: dict[str, object], said: str
) -> None:
    path.write_text(file_of({"acme": {"keys": [entry(key, **more)]}}))
    with pytest.raises(InvalidKey, match=f"Invalid API key: {said}"):
        FileDirectory(path, clock=lambda: NOON).identify(bearer(key))


def test_the_keys_of_a_disabled_tenant_do_not_count(path: Path, key: Key) -> None:
    path.write_text(file_of({"acme": {"disabled": True, "keys": [entry(key)]}}))
    with pytest.raises(InvalidKey, match="Invalid API key: its tenant is disabled"):
        FileDirectory(path).identify(bearer(key))


def test_a_remembered_key_is_forgotten_when_it_expires(path: Path, key: Key) -> None:
    path.write_text(file_of({"acme": {"keys": [entry(key, expires="2026-06-01T12:00:01Z")]}}))
    now = NOON
    directory = FileDirectory(path, clock=lambda: now)
    assert known(directory, key)
    now += 0.999
    assert known(directory, key)
    now += 0.001
    assert not known(directory, key)


def test_a_remembered_key_is_forgotten_when_the_file_no_longer_has_it(path: Path, key: Key) -> None:
    directory, other = FileDirectory(path), new_key()
    assert known(directory, key)
    path.write_text(file_of({"acme": {"keys": [entry(other)]}}))
    looks(directory)
    assert not known(directory, key)
    assert known(directory, other)


def test_the_secret_stands_nowhere_in_the_directory(path: Path, key: Key) -> None:
    directory = FileDirectory(path)
    assert known(directory, key)
    snapshot = directory._snapshot
    held = f"{vars(directory)} {snapshot} {snapshot.known} {snapshot.verified}"
    assert key.text[13:] not in held and key.id in held


# --- a file that changes --------------------------------------------------------------------------
def test_a_file_that_is_replaced_is_read(path: Path) -> None:
    directory, new = FileDirectory(path), new_key()
    other = path.with_suffix(".new")
    other.write_text(file_of({"acme": {"keys": [entry(new)]}}))
    other.replace(path)
    looks(directory)
    assert known(directory, new)
    assert directory.state().loads == 2


def test_a_file_that_has_not_changed_is_not_read(path: Path) -> None:
    directory = FileDirectory(path)
    looks(directory)
    looks(directory)
    assert directory.state().loads == 1


def test_a_swapped_symlink_is_seen_as_kubernetes_does_it(tmp_path: Path, key: Key) -> None:
    new = new_key()
    for name, one in (("..1", key), ("..2", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tenants.yaml").write_text(file_of({"acme": {"keys": [entry(one)]}}))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "tenants.yaml").symlink_to("..data/tenants.yaml")
    directory = FileDirectory(tmp_path / "tenants.yaml")
    assert known(directory, key) and not known(directory, new)
    (tmp_path / "..data_tmp").symlink_to("..2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    (tmp_path / "..1" / "tenants.yaml").unlink()
    looks(directory)
    assert known(directory, new) and not known(directory, key)


def test_a_broken_file_keeps_the_old_one_and_says_why(path: Path, key: Key) -> None:
    directory = FileDirectory(path)
    good = path.read_text()
    path.write_text("tenants: {acme: {plann: x}}")
    looks(directory)
    looks(directory)
    assert known(directory, key)
    state = directory.state()
    assert state.problem is not None
    assert state.problem.startswith(f"{path}: tenants.acme.plann: unknown key")
    assert (state.loads, state.failures) == (1, 1)
    path.write_text(good)
    looks(directory)
    assert directory.state().problem is None
    assert (directory.state().loads, directory.state().failures) == (2, 1)


def test_a_deleted_file_keeps_the_old_one_and_says_why(path: Path, key: Key) -> None:
    directory = FileDirectory(path)
    aside = path.with_suffix(".aside")
    path.rename(aside)
    looks(directory)
    assert known(directory, key)
    assert directory.state().problem == f"{path}: No such file or directory"
    path.mkdir()
    looks(directory)
    assert directory.state().problem == f"{path}: not a file"
    path.rmdir()
    aside.rename(path)
    looks(directory)
    assert directory.state().problem is None
    assert known(directory, key)


def test_a_file_half_written_is_not_read(path: Path, key: Key) -> None:
    """Its beginning is a whole file with fewer tenants, which would lock the others out."""
    first, directory = new_key(), FileDirectory(path)
    text = file_of({"umbra": {"keys": [entry(first)]}, "acme": {"keys": [entry(key)]}})
    with path.open("w") as file:
        for part in (text[: text.index("  acme")], text[text.index("  acme") :]):
            file.write(part)
            file.flush()
            directory.look()
            assert known(directory, key)
            assert directory.state().tenants == 1
    directory.look()
    assert directory.state().tenants == 2 and known(directory, key)


@pytest.mark.parametrize("sixteenths", range(16))
def test_a_file_cut_short_locks_nobody_out(path: Path, key: Key, sixteenths: int) -> None:
    directory, text = FileDirectory(path), path.read_text()
    path.write_text(text[: len(text) * sixteenths // 16])
    looks(directory)
    assert known(directory, key)
    assert directory.state().problem is not None


def test_bytes_that_are_no_text_are_refused(path: Path, key: Key) -> None:
    directory = FileDirectory(path)
    path.write_bytes(b"\xff\xfe\x00")
    looks(directory)
    assert directory.state().problem == f"{path}: not UTF-8"
    assert known(directory, key)


def test_nobody_is_unknown_while_the_file_changes(path: Path, key: Key) -> None:
    directory = FileDirectory(path)
    kept = entry(key)
    strangers: list[bool] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            strangers.append(not known(directory, key))

    asking = threading.Thread(target=ask)
    asking.start()
    for number in range(20):
        path.write_text(file_of({"acme": {"name": f"acme {number}", "keys": [kept]}}))
        looks(directory)
    ended.set()
    asking.join()
    assert directory.state().loads == 21
    assert strangers and not any(strangers)


def test_a_first_file_that_is_wrong_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="No such file"):
        open_tenants(tmp_path / "absent.yaml")
    with pytest.raises(InvalidConfig, match="not a file"):
        open_tenants(tmp_path)
    (tmp_path / "wrong.yaml").write_text("tenants: {}")
    with pytest.raises(InvalidConfig, match=r"wrong.yaml: tenants: "):
        open_tenants(tmp_path / "wrong.yaml")


def test_the_file_is_watched_until_the_directory_is_closed(path: Path) -> None:
    directory, new = open_tenants(path, interval_s=0.001), new_key()
    assert isinstance(directory, FileDirectory)
    path.write_text(file_of({"acme": {"keys": [entry(new)]}}))
    ends = time.monotonic() + 30
    while not known(directory, new) and time.monotonic() < ends:
        threading.Event().wait(0.001)
    assert known(directory, new)
    directory.close()
    path.unlink()
    assert directory.state().problem is None


def test_many_requests_of_one_key_verify_it_once(path: Path, key: Key) -> None:
    directory, header, times = FileDirectory(path), bearer(key).encode(), 20_000
    assert known(directory, key)
    began = time.perf_counter()
    for _ in range(times):
        directory.identify(header)
    each_us = (time.perf_counter() - began) / times * 1e6
    sys.stdout.write(f"{each_us:.2f} microseconds to identify a remembered key\n")
    assert len(directory._snapshot.verified) == 1
