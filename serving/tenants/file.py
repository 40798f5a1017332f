"""The directory in a file: found by a key's id, remembered by a digest, read again when it changes.

A Kubernetes Secret changes by a swapped symlink, an editor's file by a rename or in place; all of
them change what `stat` says of the file that the path leads to. Whoever is known stays known: the
new file is read and checked whole before it takes the place of the old one, and one that cannot be
is refused and said so in the state. A changed file is read once it has been the same for two looks,
so that one half written is not taken for one with fewer tenants.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from serving.errors import InvalidConfig, InvalidKey
from serving.tenants.directory import TenantsState, presented
from serving.tenants.keys import hash_key, new_key, parse_key, verify_key
from serving.tenants.schema import KeyEntry, TenantsFile, parse_tenants
from serving.tenants.tenant import Tenant

__all__ = ["FileDirectory"]

log = logging.getLogger(__name__)

_ENDLESS = float("inf")
_MISSHAPEN = "Invalid API key: it has a typo, or is not one that this service makes"
_UNKNOWN = "Invalid API key: it is not known here"
# What a key with an unknown id is compared with, so that it takes as long as a known one.
_NOBODY = hash_key(new_key().text)

_Signature: TypeAlias = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Known:
    """A key of the file: its hash, the seconds since 1970 in which it counts, whose it is."""

    hash: str = field(repr=False)
    since: float
    until: float
    disabled: str
    tenant: Tenant


@dataclass(frozen=True, slots=True, eq=False)
class _Snapshot:
    """Everything one file says. What was verified is forgotten with it.

    `verified` has the digest of a key, its tenant, and when it stops to count; no more entries than
    the file has keys.
    """

    tenants: int
    known: Mapping[str, _Known]
    verified: dict[bytes, tuple[Tenant, float]] = field(default_factory=dict)


class FileDirectory:
    """Tenants of a YAML file. Starts by reading it: `InvalidConfig` where that cannot be done.

    `names` gives the id of a served model for each of its names. After `start()` a thread looks at
    the file every `interval_s` seconds; `look()` is one such look.
    """

    def __init__(
        self,
        path: Path,
        names: Mapping[str, str] | None = None,
        interval_s: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._names = path, dict(names or {})
        self._interval_s, self._clock = interval_s, clock
        self._secret = secrets.token_bytes(32)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        raw, self._read, _ = _read(path)
        self._seen: _Signature | None = self._read
        self._verdict: str | None = None
        self._snapshot = self._checked(raw)
        self._state = self._standing(TenantsState(), self._snapshot)

    def identify(
        self, authorization: str | bytes | None, api_key: str | bytes | None = None
    ) -> Tenant:
        """See `TenantDirectory`. A key seen before costs a digest and not a verification."""
        snapshot = self._snapshot  # once: it may be another one in the next line
        text = presented(authorization, api_key)
        digest = hashlib.blake2b(text.encode("ascii"), digest_size=16, key=self._secret).digest()
        found = snapshot.verified.get(digest)
        now = self._clock()
        if found is not None and now < found[1]:
            return found[0]
        known = _verify(snapshot, text, now)
        snapshot.verified[digest] = known.tenant, known.until
        return known.tenant

    def recall(self, tenant: str, key_id: str) -> Tenant:
        """See `TenantDirectory`."""
        known = self._snapshot.known.get(key_id)
        if known is None or known.tenant.id != tenant:
            raise InvalidKey(_UNKNOWN)
        return _counting(known, self._clock()).tenant

    def state(self) -> TenantsState:
        """How the file stands."""
        return self._state

    def start(self) -> None:
        """Look at the file from time to time, in a thread of its own, until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="tenants", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop looking at the file."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """One look at the file: read it if it has changed and was the same in the look before."""
        try:
            signature = _signature(os.stat(self._path))
        except OSError as wrong:
            self._seen = None
            self._trouble(_unreadable(self._path, wrong))
            return
        settled, self._seen = signature == self._seen, signature
        if signature == self._read:
            self._trouble(self._verdict)
        elif settled:
            self._reload()

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            try:
                self.look()
            except Exception:  # whatever it is, the next look may be better
                log.exception("%s could not be looked at", self._path)

    def _reload(self) -> None:
        try:
            raw, signature, after = _read(self._path)
        except InvalidConfig as wrong:
            self._trouble(wrong.message)
            return
        if after != signature:  # somebody is writing
            self._seen = after
            return
        self._read, self._verdict = signature, None
        try:
            snapshot = self._checked(raw)
        except InvalidConfig as wrong:
            self._verdict = wrong.message
            self._trouble(wrong.message)
            return
        self._snapshot = snapshot
        self._state = self._standing(self._state, snapshot)
        log.info("%s: %d tenants, %d keys", self._path, snapshot.tenants, len(snapshot.known))

    def _checked(self, raw: bytes) -> _Snapshot:
        try:
            return _snapshot(parse_tenants(raw.decode("utf-8")), self._names)
        except UnicodeDecodeError:
            raise InvalidConfig(f"{self._path}: not UTF-8") from None
        except InvalidConfig as wrong:
            raise InvalidConfig(f"{self._path}: {wrong.message}") from None

    def _standing(self, before: TenantsState, snapshot: _Snapshot) -> TenantsState:
        return TenantsState(
            tenants=snapshot.tenants,
            keys=len(snapshot.known),
            loaded_at=self._clock(),
            loads=before.loads + 1,
            failures=before.failures,
        )

    def _trouble(self, problem: str | None) -> None:
        """Note what is wrong now, and count and log it where it was not so before."""
        state = self._state
        if problem == state.problem:
            return
        if problem is not None:
            log.error("the tenants of before are kept: %s", problem)
        failures = state.failures + (problem is not None)
        self._state = replace(state, problem=problem, failures=failures)


def _verify(snapshot: _Snapshot, text: str, now: float) -> _Known:
    key = parse_key(text)
    if key is None:
        raise InvalidKey(_MISSHAPEN)
    known = snapshot.known.get(key.id)
    genuine = verify_key(key.text, _NOBODY if known is None else known.hash)
    if known is None or not genuine:
        raise InvalidKey(_UNKNOWN)
    return _counting(known, now)


def _counting(known: _Known, now: float) -> _Known:
    """The same; `InvalidKey` where the key does not count now."""
    if known.disabled:
        raise InvalidKey(f"Invalid API key: {known.disabled}")
    if now < known.since:
        raise InvalidKey(f"Invalid API key: it counts from {_date(known.since)} on")
    if now >= known.until:
        raise InvalidKey(f"Invalid API key: it expired on {_date(known.until)}")
    return known


def _snapshot(file: TenantsFile, names: Mapping[str, str]) -> _Snapshot:
    known = {}
    for name, entry in file.tenants.items():
        shared = file.tenant(name, "", names)
        for key in entry.keys:
            off = "its tenant is disabled" if entry.disabled else ""
            known[key.id] = _known(key, off, replace(shared, key_id=key.id))
    return _Snapshot(len(file.tenants), known)


def _known(key: KeyEntry, off: str, tenant: Tenant) -> _Known:
    return _Known(
        hash=key.hash,
        since=key.not_before.timestamp() if key.not_before else -_ENDLESS,
        until=key.expires.timestamp() if key.expires else _ENDLESS,
        disabled="it was revoked" if key.disabled else off,
        tenant=tenant,
    )


def _read(path: Path) -> tuple[bytes, _Signature, _Signature]:
    """The file's bytes, and its signature before and after they were read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InvalidConfig(f"{path}: not a file")
        with path.open("rb") as file:
            before = _signature(os.fstat(file.fileno()))
            return file.read(), before, _signature(os.fstat(file.fileno()))
    except OSError as wrong:
        raise InvalidConfig(_unreadable(path, wrong)) from None


def _signature(found: os.stat_result) -> _Signature:
    """What changes when the file does: another inode, another size, another time."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unreadable(path: Path, wrong: OSError) -> str:
    return f"{path}: {wrong.strerror}"


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
