"""Files that a request carries itself, as a data URI or as base64: a `MediaSource`."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import Executor
from urllib.parse import unquote_to_bytes

import pybase64

from serving.errors import MediaInvalid
from serving.media import Wanted

__all__ = ["Inline", "decode", "scheme_of"]

# RFC 3986, section 3.1. Base64 has no colon, so that what has one in front is no base64.
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_WHITE = b" \t\r\n\f\v"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class Inline:
    """The `MediaSource` of data URIs and base64, decoded in `pool`."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool

    async def read(self, source: str, wanted: Wanted) -> bytes:
        """The bytes in `source`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, decode, source, wanted)


def scheme_of(source: str) -> str | None:
    """The scheme of an address or a data URI in lower case, or None: then it is bare base64."""
    found = _SCHEME.match(source, 0, 64)
    return found[1].lower() if found else None


def decode(source: str, wanted: Wanted) -> bytes:
    """The bytes of a data URI (RFC 2397) or of base64.

    Base64 may be of either alphabet, without its padding and with white space in it. Raises
    `MediaInvalid`, and `MediaTooLarge` before anything is decoded.
    """
    if scheme_of(source) != "data":
        return _base64(source.encode("ascii", "replace"), wanted)
    head, comma, body = source.partition(",")
    if not comma:
        raise _neither(wanted)
    encoded = body.encode("ascii", "replace")
    if head.rstrip().lower().endswith(";base64"):
        return _base64(unquote_to_bytes(encoded) if b"%" in encoded else encoded, wanted)
    data = unquote_to_bytes(encoded)
    if len(data) > wanted.limit:
        raise wanted.too_large(len(data))
    return data


def _base64(encoded: bytes, wanted: Wanted) -> bytes:
    encoded = encoded.translate(_URL_SAFE, _WHITE).rstrip(b"=")
    size = len(encoded) * 3 // 4
    if size > wanted.limit:
        raise wanted.too_large(size)
    try:
        data = pybase64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise _neither(wanted) from None
    if not data:
        raise _neither(wanted)
    return data


def _neither(wanted: Wanted) -> MediaInvalid:
    return MediaInvalid(
        f"{wanted.field} is neither a data URI nor base64 nor an http or https address",
        wanted.field,
    )
