"""A method for every RPC of `EmbeddingsService`, over the service and its accounts alone."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial

import serving.protos.embeddings_pb2 as pb
from serving.api.grpc.ranking import classify, rerank
from serving.api.grpc.reading import read_ask, read_types
from serving.api.grpc.rpc import Context, Ended, Metadata, Rpcs, Said, metadata_of
from serving.api.grpc.status import brief, code_of, retry_ms
from serving.api.grpc.streaming import answers
from serving.api.grpc.writing import write_embeddings, write_model, write_usage
from serving.api.models import find
from serving.api.rendering import request_id
from serving.api.settings import ApiSettings
from serving.calls import Call
from serving.service import Service
from serving.values import Ask

__all__ = ["Servicer"]

# Messages of one stream whose answers have not been taken. They wait for the engine together.
_IN_FLIGHT = 16


class Servicer:
    """What every RPC answers. Contexts are those of grpc.aio or of Ray Serve."""

    def __init__(
        self, service: Service, settings: ApiSettings, in_flight: int = _IN_FLIGHT
    ) -> None:
        self._service, self._in_flight = service, in_flight
        self._rpcs = Rpcs(service.accounts, settings)
        self._models_guarded = not settings.open_models
        self._token_ids = settings.accept_token_ids

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """N inputs to N embeddings."""
        work = partial(self._embed, request)
        return await self._rpcs.unary("Embed", request, context, work, pb.EmbedResponse())

    async def EmbedStream(
        self, requests: AsyncIterator[pb.EmbedStreamRequest], context: Context
    ) -> AsyncGenerator[pb.EmbedStreamResponse, None]:
        """Every message is a call of its own, with its own look at the key and its own bill.

        A stream without a valid key ends at once.
        """
        metadata = metadata_of(context)
        stream = request_id(metadata.get(b"x-request-id")).decode()
        refused = await self._rpcs.refusal(Call(stream, _STREAM), metadata)
        if refused is not None:
            refused.tell(context, pb.EmbedStreamResponse())
            return
        number = 0

        async def answer(asked: pb.EmbedStreamRequest) -> pb.EmbedStreamResponse:
            nonlocal number
            number += 1
            return await self._answer_one(asked, metadata, Call(f"{stream}.{number}", _STREAM))

        async with aclosing(answers(requests, answer, self._in_flight)) as ready:
            async for one in ready:
                yield one
        context.set_trailing_metadata([("x-request-id", stream)])

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:
        """Documents, the most relevant first."""
        work = partial(rerank, self._service, request)
        return await self._rpcs.unary("Rerank", request, context, work, pb.RerankResponse())

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        """Inputs by the likeliest of the labels given."""
        work = partial(classify, self._service, request)
        return await self._rpcs.unary("Classify", request, context, work, pb.ClassifyResponse())

    async def CountTokens(
        self, request: pb.CountTokensRequest, context: Context
    ) -> pb.CountTokensResponse:
        """What `Embed` would be billed for; nothing is charged."""
        work = partial(self._count, request)
        empty = pb.CountTokensResponse()
        return await self._rpcs.unary("CountTokens", request, context, work, empty)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Every model."""
        models = [write_model(spec) for spec in self._service.catalog.specs]

        async def work(call: Call) -> Said[pb.ListModelsResponse]:
            return Said(pb.ListModelsResponse(models=models))

        return await self._rpcs.unary(
            "ListModels",
            request,
            context,
            work,
            pb.ListModelsResponse(),
            guarded=self._models_guarded,
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """One model by its id or an alias."""

        async def work(call: Call) -> Said[pb.GetModelResponse]:
            spec = find(self._service.catalog, request.model)
            return Said(pb.GetModelResponse(model=write_model(spec)))

        return await self._rpcs.unary(
            "GetModel",
            request,
            context,
            work,
            pb.GetModelResponse(),
            guarded=self._models_guarded,
        )

    async def _embed(self, request: pb.EmbedRequest, call: Call) -> Said[pb.EmbedResponse]:
        types = read_types(request.options)
        answer = await self._service.embed(call, self._ask(request))
        began = time.perf_counter()
        data = await write_embeddings(answer, types, request.options.float_values)
        usage = write_usage(answer.usage)
        written = pb.EmbedResponse(model=call.model, data=data, usage=usage, request_id=call.id)
        return Said(written, answer.stages, time.perf_counter() - began)

    def _ask(self, request: pb.EmbedRequest | pb.CountTokensRequest) -> Ask:
        spec = find(self._service.catalog, request.model)
        return read_ask(spec, request, self._service.max_inputs, self._token_ids)

    async def _count(
        self, request: pb.CountTokensRequest, call: Call
    ) -> Said[pb.CountTokensResponse]:
        prepared = await self._service.prepare(call, self._ask(request))
        usage = write_usage(prepared.usage)
        return Said(pb.CountTokensResponse(model=call.model, usage=usage, request_id=call.id))

    async def _answer_one(
        self, asked: pb.EmbedStreamRequest, metadata: Metadata, call: Call
    ) -> pb.EmbedStreamResponse:
        call.idempotency_key = asked.idempotency_key or None
        work = partial(self._embed, asked.request)
        ended = await self._rpcs.run(call, metadata, asked.request, work)
        tag = asked.client_tag
        if ended.message is not None:
            return pb.EmbedStreamResponse(client_tag=tag, response=ended.message)
        return pb.EmbedStreamResponse(client_tag=tag, error=_error(ended))


_STREAM = "grpc/EmbedStream"


def _error(ended: Ended[pb.EmbedResponse]) -> pb.Error:
    error = ended.error
    assert error is not None
    return pb.Error(
        code=code_of(error).value[0],
        reason=error.code,
        message=brief(error.message),
        field=error.field or "",
        retry_after_ms=retry_ms(error),
        request_id=ended.call.id,
    )
