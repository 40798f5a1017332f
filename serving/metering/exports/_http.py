"""One POST to a billing system, and its failures as `Unavailable`."""

from __future__ import annotations

import httpx

from serving.errors import Unavailable

__all__ = ["client", "post", "words"]

_WORDS = 300  # characters of an answer that are repeated in an error


def client(headers: dict[str, str], timeout_s: float) -> httpx.Client:
    """A client that follows no redirects: usage and keys go where config says, and only there."""
    return httpx.Client(headers=headers, timeout=timeout_s, follow_redirects=False)


def post(http: httpx.Client, url: str, name: str, **content: object) -> httpx.Response:
    """The answer, whatever its status; `Unavailable` where there is none."""
    try:
        return http.post(url, **content)  # type: ignore[arg-type]  # content=, data=, headers=
    except httpx.HTTPError as error:
        raise Unavailable(f"{name} does not answer: {error or type(error).__name__}") from error


def words(answer: httpx.Response) -> str:
    """Status and first words of an answer, for an error."""
    return f"{answer.status_code} {' '.join(answer.text[:_WORDS].split())}".strip()
