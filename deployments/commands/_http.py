"""What a command asks over HTTP: one GET, and a sentence for whatever goes wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import httpx
import orjson

from serving.errors import InvalidConfig, PolyvecError, Refused, Unavailable

__all__ = ["API_KEY", "fetch", "parsed"]

API_KEY = "POLYVEC_API_KEY"
_WITHIN_S = 60.0


def fetch(url: str, params: Mapping[str, str] | None = None, *, with_key: bool = True) -> bytes:
    """The body of a 200, asked for with the key of `$POLYVEC_API_KEY` where there is one.

    Raises `InvalidConfig` for what is no address, `Unavailable` where nobody answers, and `Refused`
    with the words of another answer.
    """
    key = os.environ.get(API_KEY) if with_key else None
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(url, params=params, headers=headers, timeout=_WITHIN_S)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as wrong:
        raise InvalidConfig(f"{url!r} is no address that can be asked: {wrong}") from None
    except httpx.HTTPError as error:
        raise Unavailable(f"{url} does not answer: {error or type(error).__name__}") from None
    if answer.status_code != 200:
        raise Refused(f"{url} answers {answer.status_code}: {_why(answer)}")
    return answer.content


def parsed(url: str, body: bytes) -> dict[str, object]:
    """A body that is a JSON object; `Refused` where it is none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise Refused(f"{url} answers, but not with a JSON object")
    return value


def _why(answer: httpx.Response) -> str:
    try:
        body = parsed("", answer.content)
    except PolyvecError:
        return answer.reason_phrase
    # Ours say `detail`, Prometheus' `error`.
    why = str(body.get("detail") or body.get("error") or answer.reason_phrase)
    return f"{why} (${API_KEY})" if answer.status_code == 401 else why
