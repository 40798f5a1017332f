"""Makes the Python of `embeddings.proto`: `python -m serving.protos.generate`.

Run it after every change of the proto, with the grpcio-tools of the extra `test`; the stubs check
at import that grpcio and protobuf are not older than what made them.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["PROTO", "ROOT", "generate"]

# What is generated is nobody's style, and its imports are not unused.
_HEADER = "# ruff: noqa\n# fmt: off\n# mypy: ignore-errors\n"

ROOT = Path(__file__).resolve().parents[2]
PROTO = Path(__file__).with_name("embeddings.proto").relative_to(ROOT)


def generate(folder: Path) -> None:
    """Write the messages, their types and the stubs below `folder`, at the proto's own path.

    Raises SystemExit where protoc refuses the proto; it has said why on stderr by then.
    """
    from grpc_tools import protoc

    out = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    if failed := protoc.main(["protoc", f"-I{ROOT}", *_includes(), *out, str(PROTO)]):
        sys.exit(failed)
    for made in (folder / PROTO.parent).glob(f"{PROTO.stem}_pb2*.py*"):
        made.write_text(_HEADER + made.read_text())


def _includes() -> list[str]:
    import grpc_tools

    return [f"-I{folder}/_proto" for folder in grpc_tools.__path__]


if __name__ == "__main__":
    generate(ROOT)
