"""What `polyvec keys new`, `list` and `revoke` do: a tenants file's text to its next text.

Texts in, texts out, and one function that writes. Comments in the file do not survive an edit.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from serving.errors import InvalidConfig
from serving.tenants.keys import hash_key, new_key
from serving.tenants.schema import KeyEntry, parse_tenants, read_yaml

__all__ = ["KeyRow", "Made", "add_key", "edit_file", "list_keys", "revoke_key"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Made:
    """A new key. `secret` is the key itself: it is shown once, and kept nowhere."""

    id: str
    tenant: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key of the file, as a table shows it.

    `state` is active, early (before `not_before`), expired, revoked, or off (with its tenant).
    """

    tenant: str
    id: str
    name: str
    state: str
    created: datetime | None
    not_before: datetime | None
    expires: datetime | None


def add_key(
    text: str,
    tenant: str,
    now: datetime,
    *,
    name: str = "",
    plan: str = "",
    not_before: datetime | None = None,
    expires: datetime | None = None,
    create: bool = False,
) -> tuple[str, Made]:
    """The file with one more key of `tenant`, and that key.

    With `create` a tenant that the file lacks (or a whole file: `text` may be empty) is added, with
    `plan`; without it `InvalidConfig` names those there are. The plan of a tenant that is there
    is not changed by this: another one is refused.
    """
    raw = _raw(text)
    tenants = raw.setdefault("tenants", {})
    if tenant not in tenants:
        if not create:
            choices = ", ".join(tenants) or "none"
            raise InvalidConfig(f"there is no tenant {tenant!r}; the tenants are {choices}")
        tenants[tenant] = {"plan": plan} if plan else {}
    elif plan not in ("", tenants[tenant].get("plan")):
        raise InvalidConfig(f"{tenant} has another plan already; change it in the file")
    key = new_key()
    written: dict[str, object] = {"id": key.id, "hash": hash_key(key.text)}
    written |= {"name": name} if name else {}
    written |= {"created": _utc(now)}
    written |= {"not_before": _utc(not_before)} if not_before else {}
    written |= {"expires": _utc(expires)} if expires else {}
    entry = tenants[tenant]
    entry["keys"] = [*(entry.get("keys") or []), written]
    return _text(raw), Made(key.id, tenant, key.text)


def revoke_key(text: str, key_id: str) -> str:
    """The file with that key disabled; it stays listed. `InvalidConfig` where there is none."""
    parse_tenants(text)
    raw = _raw(text)
    for entry in raw["tenants"].values():
        for key in entry.get("keys") or []:
            if key["id"] == key_id:
                key["disabled"] = True
                return _text(raw)
    raise InvalidConfig(f"there is no key {key_id!r} in the file; polyvec keys list shows them")


def list_keys(text: str, now: datetime) -> tuple[KeyRow, ...]:
    """Every key of the file, in its order, and whether it counts `now`. No hashes."""
    return tuple(
        KeyRow(
            tenant=name,
            id=key.id,
            name=key.name,
            state=_state(key, entry.disabled, now),
            created=key.created,
            not_before=key.not_before,
            expires=key.expires,
        )
        for name, entry in parse_tenants(text).tenants.items()
        for key in entry.keys
    )


def edit_file(path: Path, change: Callable[[str], tuple[str, T]]) -> T:
    """Put `change`'s text in the place of the file's, at once and for good; its second result.

    The file gets mode 0600; a symlink stays one. Two edits at a time follow one another. A file
    that is not there has the text "". Raises what `change` does, and then nothing is written;
    `InvalidConfig` where the file cannot be read or written.
    """
    target = Path(os.path.realpath(path))
    try:
        with _alone(target.parent):
            text, result = change(target.read_text("utf-8") if target.exists() else "")
            _write(target, text)
            return result
    except UnicodeDecodeError:
        raise InvalidConfig(f"{path}: not UTF-8") from None
    except OSError as wrong:
        raise InvalidConfig(f"{path}: {wrong.strerror}") from None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(target: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:  # mkstemp's mode is 0600
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _raw(text: str) -> dict[str, Any]:
    """The file as YAML has it, so that what an edit does not touch stays as it was written."""
    if not text.strip():
        return {}
    parse_tenants(text)
    raw = read_yaml(text)
    assert isinstance(raw, dict)
    return raw


def _text(raw: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
    parse_tenants(text)
    return text


def _state(key: KeyEntry, tenant_disabled: bool, now: datetime) -> str:
    if key.disabled:
        return "revoked"
    if tenant_disabled:
        return "off"
    if key.expires and now >= key.expires:
        return "expired"
    return "early" if key.not_before and now < key.not_before else "active"


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)
