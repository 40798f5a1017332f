"""The hub, offline with a cache and online over loopback: what is fetched, and what is said."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from serving.errors import ModelUnavailable
from serving.models.checkpoints import Checkpoint, resolve

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "modules.json": b'[{"path": "", "type": "x.Transformer"}, {"path": "2", "type": "x.Dense"}]',
    "README.md": b"# tiny",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"the same again",
    "2/config.json": b"{}",
    "2/pytorch_model.bin": b"dense",
    "onnx/model.json": b"not for us",
    "image.png": b"nor this",
    "adapters/code/adapter_config.json": b"{}",
    "adapters/code/adapter_model.safetensors": b"an adapter",
    "colbert_linear.pt": b"a head",
    "preprocessor_config.json": b"{}",
    "chat_template.jinja": b"{}",
    "long.pt": b"nor this",
    "modeling_x.py": b"nor this",
}


def refusal(source: str, revision: str | None = None, *, weights: bool = True) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        resolve(source, revision, weights=weights)
    error = caught.value
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert "\n" not in error.message
    return error.message


# Offline


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub that is offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def cached(cache: Path, *files: str) -> Path:
    """org/tiny as `snapshot_download` leaves it, at its branch main."""
    folder = cache / "models--org--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name in files:
        (snapshot / name).write_text("{}")
    return snapshot


def test_a_cached_snapshot_is_used_offline_and_says_its_commit(cache: Path) -> None:
    path = cached(cache, "config.json", "model.safetensors")
    assert resolve("org/tiny") == Checkpoint(path, "org/tiny", COMMIT)
    assert resolve("org/tiny", COMMIT).revision == resolve("org/tiny", "main").revision == COMMIT


def test_the_environment_says_where_the_cache_is_and_that_it_is_offline(tmp_path: Path) -> None:
    path = cached(tmp_path, "config.json", "model.safetensors")
    code = "from serving.models.checkpoints import resolve; print(resolve('org/tiny').path)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HUGGINGFACE_HUB_CACHE": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert found.stdout.strip() == str(path)


def test_offline_and_not_cached(cache: Path) -> None:
    expected = f"org/tiny is not in {cache}, and HF_HUB_OFFLINE is set"
    assert refusal("org/tiny") == expected
    assert refusal("org/tiny", "v2") == expected.replace("tiny", "tiny at revision v2")


def test_a_cached_snapshot_without_weights(cache: Path) -> None:
    cached(cache, "config.json")
    assert "has no weights" in refusal("org/tiny")
    assert resolve("org/tiny", weights=False).revision == COMMIT


def test_an_id_that_the_hub_does_not_allow(cache: Path) -> None:
    assert refusal("org/a..b").startswith("org/a..b cannot be fetched: HFValidationError: ")


# Online


class Hub(http.server.BaseHTTPRequestHandler):
    """The four routes that a snapshot takes. Other names are the error code to answer with."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if "/org/tiny" not in path and not path.startswith("/org/tiny"):
            self.answer(404 if "Gated" not in path else 403, b"", error=path.split("/")[3])
        elif "/resolve/" in path:
            name = path.split("/", 5)[5]
            self.asked.append(name)
            self.answer(200, FILES[name])
        elif "/tree/" in path:
            listed = [
                {"type": "file", "path": n, "size": len(b), "oid": n} for n, b in FILES.items()
            ]
            self.answer(200, json.dumps(listed).encode())
        elif path.endswith(("/main", "/org/tiny")):
            self.answer(200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": []}).encode())
        else:
            self.answer(404, b"", error="RevisionNotFound")

    def answer(self, status: int, body: bytes, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hash(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub with `org/tiny`; the names of the files that were asked of it."""
    handler = type("Asked", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    at = f"http://127.0.0.1:{server.server_port}"
    template = at + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", at)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield handler.asked
    server.shutdown()
    server.server_close()


def names(path: Path) -> set[str]:
    return {str(one.relative_to(path)) for one in path.rglob("*") if one.is_file()}


def test_only_what_is_needed_is_fetched(hub: list[str]) -> None:
    checkpoint = resolve("org/tiny")
    assert checkpoint.revision == COMMIT
    other = {"pytorch_model.bin", "onnx/model.json", "image.png", "long.pt", "modeling_x.py"}
    assert names(checkpoint.path) == set(FILES) - other
    assert not other & set(hub)


def test_a_tokenizer_needs_no_weights(hub: list[str]) -> None:
    found = names(resolve("org/tiny", weights=False).path)
    weights = {name for name in FILES if name.endswith((".safetensors", ".bin"))}
    other = {"onnx/model.json", "image.png", "long.pt", "modeling_x.py"}
    assert found == FILES.keys() - weights - other


def test_what_was_fetched_is_there_when_the_hub_is_not(
    hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    online = resolve("org/tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve("org/tiny") == online


def test_a_part_of_a_snapshot_is_not_enough_offline(
    hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve("org/tiny", weights=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refusal("org/tiny").startswith("only a part of org/tiny is in ")


def test_a_model_that_is_not_on_the_hub(hub: list[str]) -> None:
    assert refusal("RepoNotFound/x") == (
        "there is no model RepoNotFound/x on the hub (or it is private), nor such a directory"
    )


def test_a_model_that_is_gated(hub: list[str]) -> None:
    assert refusal("GatedRepo/x").startswith("GatedRepo/x is gated: accept its licence at http")


def test_a_revision_that_is_not_on_the_hub(hub: list[str]) -> None:
    assert refusal("org/tiny", "v9") == "org/tiny has no revision v9"


def test_a_hub_that_does_not_answer(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert refusal("org/tiny").endswith("and http://127.0.0.1:9 cannot be reached")
