"""Whether a deployed service embeds: what `helm test` runs, and a person after an upgrade.

    POLYVEC_API_KEY=... python -m deployments.smoke --url http://127.0.0.1:8000

A line a check. The exit code is 0 where all hold, 1 where one fails, 2 for a mistake in the words.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

__all__ = ["Failed", "checks", "main"]

_LENGTH = 1e-3  # of a vector in float16 or bfloat16, from 1
_TEXT = "A cat sleeps on a warm wall."


class Failed(Exception):
    """`Failed(sentence)`: a check does not hold."""


def main(argv: Sequence[str] | None = None, transport: httpx.BaseTransport | None = None) -> int:
    """Run the checks against `--url`; the exit code. `transport` is httpx's, for tests."""
    args = _parser().parse_args(argv)
    headers = {}
    if key := os.environ.get("POLYVEC_API_KEY", "").strip():  # a file's last line ends
        headers["authorization"] = f"Bearer {key}"
    try:
        client = httpx.Client(
            base_url=args.url, timeout=args.timeout, headers=headers, transport=transport
        )
    except ValueError:  # a key with a line's end in it, most often
        sys.stderr.write("POLYVEC_API_KEY cannot be sent in a header\n")
        return 2
    with client:
        try:
            for line in checks(client, args.model):
                sys.stdout.write(f"ok    {line}\n")
        except Failed as failed:
            sys.stderr.write(f"fail  {failed}\n")
            return 1
    return 0


def checks(client: httpx.Client, model: str | None = None) -> Iterator[str]:
    """A sentence for each check that holds, in order; `Failed` at the first that does not.

    `model` is the one that embeds; by default the first of the listing that does.
    """
    for path in ("/live", "/ready"):
        _asked(client, "GET", path)
        yield path
    listed = _entries(_asked(client, "GET", "/v1/models"))
    yield f"/v1/models: {', '.join(str(entry['id']) for entry in listed)}"
    chosen = _chosen(listed, model)
    body = {"model": chosen["id"], "input": [_TEXT]}
    if chosen.get("tasks") and not chosen.get("default_task"):
        body["task"] = chosen["tasks"][0]
    vector = _vector(_asked(client, "POST", "/v1/embeddings", body))
    length = math.hypot(*vector)
    if not abs(length - 1) < _LENGTH:
        raise Failed(f"/v1/embeddings: the vector's length is {length:g}, and not 1")
    wanted = chosen.get("default_dimensions", len(vector))
    if len(vector) != wanted:
        raise Failed(f"/v1/embeddings: {len(vector)} dimensions; the listing says {wanted}")
    yield f"/v1/embeddings: {chosen['id']}, {len(vector)} dimensions, unit length"


def _asked(client: httpx.Client, method: str, path: str, body: object = None) -> Any:
    """The JSON of an answer with 200."""
    try:
        answer = client.request(method, path, json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Failed(f"{path}: {error or type(error).__name__}") from None
    if answer.status_code != 200:
        raise Failed(f"{path}: {answer.status_code} {answer.text[:500].strip()}")
    try:
        return answer.json()
    except ValueError:
        raise Failed(f"{path}: the answer is not JSON") from None


def _entries(listing: Any) -> list[Mapping[str, Any]]:
    found = listing.get("data") if isinstance(listing, dict) else None
    if not (isinstance(found, list) and found and all("id" in entry for entry in found)):
        raise Failed("/v1/models: no models are listed")
    return found


def _chosen(listed: Sequence[Mapping[str, Any]], model: str | None) -> Mapping[str, Any]:
    for entry in listed:
        if model in (entry["id"], *entry.get("aliases", ())):
            return entry
        if model is None and "embeddings" in entry.get("output_modalities", ["embeddings"]):
            return entry
    names = ", ".join(str(entry["id"]) for entry in listed)
    raise Failed(f"/v1/models: no {model or 'model that embeds'} among {names}")


def _vector(answer: Any) -> list[float]:
    try:
        [item] = answer["data"]
        return [float(number) for number in item["embedding"]]
    except (KeyError, TypeError, ValueError):
        raise Failed("/v1/embeddings: there is no vector in the answer") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deployments.smoke", description="Does a service embed?")
    parser.add_argument("--url", required=True, type=_url, help="where the service is")
    parser.add_argument("--model", help="the model that embeds; by default the first that can")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for an answer")
    return parser


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} does not begin with http:// or https://")
    return text


if __name__ == "__main__":
    sys.exit(main())
