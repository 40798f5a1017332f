"""Tenants files to read: a key as a file has it, and the text around it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import yaml

from serving.tenants.keys import Key, hash_key

__all__ = ["bearer", "entry", "file_of", "moment"]


def bearer(key: Key) -> str:
    """What a client sends as `authorization`."""
    return f"Bearer {key.text}"


def entry(key: Key, **more: object) -> dict[str, object]:
    """A key as a file has it."""
    return {"id": key.id, "hash": hash_key(key.text), **more}


def file_of(tenants: dict[str, Any], plans: dict[str, Any] | None = None) -> str:
    """The text of a tenants file."""
    return str(yaml.safe_dump({"plans": plans or {}, "tenants": tenants}, sort_keys=False))


def moment(text: str) -> datetime:
    """A moment, such as `2026-01-01T00:00:00Z`."""
    return datetime.fromisoformat(text)
