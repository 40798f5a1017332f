"""API keys: made, checked for typos, hashed, verified. No file and no tenant.

    pv_ | id (10) | secret (32) | checksum (6)          all of it base62

The id is public: it finds the one hash to compare with, so that a lookup does not try every key.
The secret has 190 random bits, which nobody can guess at any speed; so one salted HMAC-SHA256 is
as safe here as a slow password hash, and costs three microseconds. The checksum is a CRC-32: any
single wrong character, and nearly any other slip, is noticed without a lookup.
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field

__all__ = ["Key", "hash_key", "is_hash", "new_key", "parse_key", "verify_key"]

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX = "pv_"
_ID, _SECRET, _CHECKSUM = 10, 32, 6
_SHAPE = re.compile(rf"{_PREFIX}[0-9A-Za-z]{{{_ID + _SECRET + _CHECKSUM}}}", re.ASCII)
# The name of the construction, the salt and the digest, both in hex.
_SCHEME = "hs256"
_SALT_BYTES = 16
_HASH = re.compile(rf"{_SCHEME}\$([0-9a-f]{{{2 * _SALT_BYTES}}})\$([0-9a-f]{{64}})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the right shape, known or not. `repr` and the log show its id only."""

    id: str
    text: str = field(repr=False)

    def __str__(self) -> str:
        return f"{_PREFIX}{self.id}…"


def new_key() -> Key:
    """A fresh key from the system's randomness. Show `text` once; keep `hash_key(text)`."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_ID + _SECRET))
    return Key(body[:_ID], f"{_PREFIX}{body}{_checksum(body)}")


def parse_key(text: str) -> Key | None:
    """The key that `text` spells, or None where its shape or its checksum is wrong."""
    if _SHAPE.fullmatch(text) is None:
        return None
    body = text[len(_PREFIX) : -_CHECKSUM]
    if text[-_CHECKSUM:] != _checksum(body):
        return None
    return Key(body[:_ID], text)


def hash_key(text: str, salt: bytes | None = None) -> str:
    """What may be stored of a key: `hs256$<salt>$<digest>`, with a fresh salt."""
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    return f"{_SCHEME}${salt.hex()}${_digest(text, salt).hex()}"


def is_hash(stored: str) -> bool:
    """Whether `stored` has the form that `hash_key` gives."""
    return _HASH.fullmatch(stored) is not None


def verify_key(text: str, stored: str) -> bool:
    """Whether `stored` is a hash of this key. The digests are compared in constant time."""
    found = _HASH.fullmatch(stored)
    if found is None:
        return False
    salt, digest = found.groups()
    return hmac.compare_digest(_digest(text, bytes.fromhex(salt)), bytes.fromhex(digest))


def _digest(text: str, salt: bytes) -> bytes:
    return hmac.digest(salt, text.encode("utf-8", "surrogatepass"), "sha256")


def _checksum(body: str) -> str:
    """CRC-32 of the prefix and the body, in six base62 digits (62^6 is above 2^32)."""
    number = zlib.crc32((_PREFIX + body).encode())
    digits = []
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
