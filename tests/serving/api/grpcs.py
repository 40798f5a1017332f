"""A real gRPC server of a service, and a channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import grpc
import numpy as np
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from serving.api.grpc.server import serve_grpc
from serving.api.settings import ApiSettings
from serving.protos import embeddings_pb2 as pb
from serving.protos.embeddings_pb2_grpc import EmbeddingsServiceStub
from serving.service import Service

__all__ = ["channel", "details", "embed", "inputs", "stub", "trailers", "vectors"]


@asynccontextmanager
async def channel(
    service: Service, settings: ApiSettings | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of that service."""
    async with serve_grpc(service, "127.0.0.1:0", settings) as port:
        options = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as one:
            yield one


@asynccontextmanager
async def stub(
    service: Service, settings: ApiSettings | None = None
) -> AsyncIterator[EmbeddingsServiceStub]:
    """A stub of that service."""
    async with channel(service, settings) as one:
        yield EmbeddingsServiceStub(one)


def inputs(*texts: str) -> list[pb.Input]:
    """Texts as inputs."""
    return [pb.Input(text=text) for text in texts]


def embed(*texts: str, model: str = "toy", **options: object) -> pb.EmbedRequest:
    """A request for these texts."""
    return pb.EmbedRequest(model=model, inputs=inputs(*texts), options=pb.EmbedOptions(**options))  # type: ignore[arg-type]


def vectors(answer: pb.EmbedResponse) -> np.ndarray:
    """The float vectors of an answer, `[inputs, dimensions]`."""
    return np.array([np.frombuffer(one.vectors[0].packed, "<f4") for one in answer.data])


def details(error: grpc.aio.AioRpcError) -> dict[str, Message]:
    """The `google.rpc` details of an error by their name, as other clients read them."""
    status = rpc_status.from_call(error)
    assert status is not None
    found = {}
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        assert packed.Unpack(found[name])
    return found


def trailers(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str | bytes]:
    """Trailing metadata by name."""
    return dict(metadata or ())
