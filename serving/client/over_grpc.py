"""Questions over gRPC."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from serving.client.retrying import SLACK_S, error_of
from serving.errors import PolyvecError
from serving.protos.embeddings_pb2_grpc import EmbeddingsServiceStub

__all__ = ["GrpcTransport"]

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

# What a code means where the server says no more, as a proxy before it does not.
_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 422,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class GrpcTransport:
    """`Transport` over one channel to `host:port`."""

    def __init__(self, target: str, *, secure: bool) -> None:
        self._target, self._secure = target, secure
        self._channel: grpc.aio.Channel | None = None

    async def ask(
        self, method: str, request: Message, headers: Mapping[str, str], timeout_s: float
    ) -> Message:
        """See `Transport`."""
        if self._channel is None:  # made here, in the loop that it is used in
            self._channel = self._opened()
            self._stub = EmbeddingsServiceStub(self._channel)
        call = getattr(self._stub, method)(
            request, timeout=timeout_s + SLACK_S, metadata=tuple(headers.items())
        )
        try:
            answer: Message = await call
        except grpc.aio.AioRpcError as error:
            raise _ours(error, self._target) from None
        return answer

    async def close(self) -> None:
        """See `Transport`."""
        if self._channel is not None:
            await self._channel.close()

    def _opened(self) -> grpc.aio.Channel:
        if self._secure:
            return grpc.aio.secure_channel(self._target, grpc.ssl_channel_credentials(), _OPTIONS)
        return grpc.aio.insecure_channel(self._target, _OPTIONS)


def _ours(error: grpc.aio.AioRpcError, target: str) -> PolyvecError:
    told = dict(error.trailing_metadata() or ())
    info, bad = _details(told.get("grpc-status-details-bin"))
    wait = told.get("retry-after-ms")
    retry_after_s = int(wait) / 1000 if wait is not None and wait.isdigit() else None
    message = error.details() or error.code().name
    if not info.reason:
        message = f"{target}: {message}"
    field = bad.field_violations[0].field if bad.field_violations else None
    status = _STATUSES.get(error.code(), 500)
    return error_of(status, info.reason, message, field, retry_after_s)


def _details(packed: str | bytes | None) -> tuple[ErrorInfo, BadRequest]:
    info, bad = ErrorInfo(), BadRequest()
    if isinstance(packed, bytes):
        try:
            for one in Status.FromString(packed).details:
                one.Unpack(info)
                one.Unpack(bad)
        except DecodeError:  # not a server of ours
            pass
    return info, bad
