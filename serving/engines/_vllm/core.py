"""vLLM's engine core behind an event loop in a thread of its own: any loop may ask it, from any
thread, and it can be started where there is none."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from serving.engines import EngineOptions
from serving.engines._faults import first_line
from serving.engines._vllm import site
from serving.engines._vllm.arguments import arguments
from serving.engines._vllm.backbones import Backbone
from serving.engines._vllm.packing import Wish
from serving.errors import EngineDied, InvalidConfig, ModelUnavailable, PolyvecError
from serving.models.spec import Adapter, ModelSpec
from serving.operators import declare
from serving.telemetry import SILENT, Telemetry
from serving.telemetry.engines import AdapterMetrics
from serving.values import Floats

__all__ = ["Core", "How", "Reply"]

_log = logging.getLogger(__name__)

_ALWAYS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork would copy locks that other threads hold
    "GLOO_SOCKET_IFNAME": "lo",  # its sockets would be open to the network
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
_CHILDREN = {"PYTHONWARNINGS": "ignore"}
_BULK = 2**62  # beyond every turn: vLLM takes the lowest number first, and knows of 64 bits

T = TypeVar("T")


class How(NamedTuple):
    """How an input is run, and when: of its class, the least `turn` first.

    `cached`: what was computed of a like beginning may be taken.
    """

    adapter: str | None
    bulk: bool
    turn: int
    cached: bool


class Reply(NamedTuple):
    """An input's answer as `packing` has it, and the token ids that vLLM saw."""

    row: Floats
    ids: Sequence[int]


class Core:
    """A started vLLM. Everything but the constructor, `run` and `stop` belongs to its loop."""

    # A foreign border: what is vLLM's has vLLM's types.
    def __init__(
        self,
        spec: ModelSpec,
        options: EngineOptions,
        backbone: Backbone,
        telemetry: Telemetry,
    ) -> None:
        self._spec = spec
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._work, name=f"engine {spec.id}", daemon=True)
        self._thread.start()
        self._adapters: dict[str | None, Any] = {None: None}
        self._numbers = count(1)
        self._told = AdapterMetrics(telemetry, spec.id)
        self._llm: Any = None
        # For vLLM's sockets, which it leaves behind.
        self._folder = TemporaryDirectory(prefix="pv-vllm-", ignore_cleanup_errors=True)
        try:
            self.run(self._start(options, backbone, telemetry)).result()
        except BaseException:
            self._end()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have that done in the loop of this engine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    @property
    def died(self) -> str | None:
        """Why nothing can be answered any more, or None."""
        if self._llm is None:
            return f"the engine of {self._spec.id} is closed"
        return f"the engine of {self._spec.id} has died: {_DEAD}" if self._llm.errored else None

    @property
    def unfinished(self) -> int:
        """How many inputs vLLM has that are not answered."""
        if self._llm is None:
            return 0
        # Of its own method for it, vLLM before 0.29 knows nothing.
        return int(self._llm.output_processor.get_num_unfinished_requests())

    async def ask(self, prompt: Mapping[str, Any], wish: Wish, how: How) -> Reply:
        """One input's answer. Whoever stops waiting takes it out of the engine."""
        from vllm import PoolingParams
        from vllm.v1.engine.exceptions import EngineDeadError

        params = PoolingParams(
            task="embed", skip_reading_prefix_cache=not how.cached, extra_kwargs=wish._asdict()
        )
        name = uuid4().hex
        answers = self._llm.encode(
            prompt,
            params,
            name,
            lora_request=self._adapters[how.adapter],
            priority=how.turn + _BULK * how.bulk,
        )
        try:
            found = [one async for one in answers]
            return Reply(found[-1].outputs.data.numpy(), found[-1].prompt_token_ids)
        except asyncio.CancelledError:
            with suppress(EngineDeadError):
                await self._llm.abort(name)
            raise
        except Exception:
            if (died := self.died) is not None:
                raise EngineDied(died, 1.0, True) from None
            _log.exception("an input of %s failed", self._spec.id)
            raise PolyvecError("the model failed on this input") from None

    async def exchange(self, gone: str | None, come: Adapter | None) -> None:
        """See `Adaptable.exchange`."""
        try:
            if gone is not None:
                await self._llm.remove_lora(self._adapters.pop(gone).lora_int_id)
                self._told.dropped()
            if come is not None:
                await self._add(come)
        except Exception as error:
            if (died := self.died) is not None:
                raise EngineDied(died) from None
            name = gone if come is None else come.name
            message = f"the adapter {name!r} cannot be loaded into vLLM: {_told(error)}"
            raise ModelUnavailable(message) from None

    async def _add(self, adapter: Adapter) -> None:
        from vllm.lora.request import LoRARequest

        # Another name for every load: vLLM takes what it has cached under a name for its own.
        number = next(self._numbers)
        request = LoRARequest(f"{number} {adapter.name}", number, adapter.path)
        with self._told.loading():
            await self._llm.add_lora(request)
        self._adapters[adapter.name] = request

    def stop(self) -> None:
        """End vLLM's processes and the thread. May take seconds."""
        if self._llm is not None:
            with suppress(Exception):
                self.run(self._shut()).result()
        self._end()

    async def _start(
        self, options: EngineOptions, backbone: Backbone, telemetry: Telemetry
    ) -> None:
        with _environment(options, self._folder.name):
            declare()
            if find_spec("vllm") is None:
                raise InvalidConfig("the vllm engine needs vLLM: install polyvec[gpu], or [cpu]")
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM

            from serving.engines._vllm.stats import stat_logger

            device, dtype = _device(options, current_platform)
            given = arguments(self._spec, options, backbone, device, dtype)
            try:
                config = AsyncEngineArgs(**given).create_engine_config()
            except Exception as error:
                message = f"vLLM cannot be configured for {self._spec.id}: {_told(error)}"
                raise InvalidConfig(message) from None
            if device == "cpu" and config.cache_config.kv_cache_memory_bytes is None:
                config.cache_config.kv_cache_memory_bytes = _cache_bytes(config)
            try:
                self._llm = AsyncLLM.from_vllm_config(
                    config,
                    stat_loggers=[stat_logger(telemetry, self._spec.id)],
                    disable_log_stats=telemetry is SILENT,
                )
                for one in self._spec.adapters:
                    await self._add(one)
            except Exception as error:
                await self._shut()
                message = f"{self._spec.id} cannot be loaded into vLLM: {_told(error)}"
                raise ModelUnavailable(message) from None

    async def _shut(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.shutdown()
            await asyncio.sleep(0)  # for vLLM's own tasks to see that they are cancelled

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _end(self) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._folder.cleanup()


_DEAD = "vLLM's engine core has ended"


@contextmanager
def _environment(options: EngineOptions, folder: str) -> Iterator[None]:
    """What vLLM reads from the environment, here and in the processes that it starts."""
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
    paths = [str(Path(site.__file__).parent), os.environ.get("PYTHONPATH", "")]
    meant = {
        **_CHILDREN,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "VLLM_RPC_BASE_PATH": folder,
    }
    if options.threads is not None:
        meant["OMP_NUM_THREADS"] = str(options.threads)
        meant["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    before = {name: os.environ[name] for name in meant if name in os.environ}
    os.environ.update(meant)
    try:
        yield
    finally:
        for name in meant:
            os.environ.pop(name, None)
        os.environ.update(before)


# A foreign border: vLLM's platform and configuration.
def _device(options: EngineOptions, platform: Any) -> tuple[str, str]:
    """The device that this build of vLLM runs on, and the number type's name."""
    device = "cpu" if platform.is_cpu() else "cuda"
    if options.device is not None and options.device != device:
        message = f"device is {options.device!r}, but this vLLM runs on {device!r}"
        raise InvalidConfig(f"{message}; CUDA_VISIBLE_DEVICES chooses among several GPUs")
    if options.dtype != "auto":
        return device, options.dtype
    if device == "cuda":
        return device, "bfloat16" if platform.has_device_capability(80) else "float32"
    import torch

    from serving.engines._hardware import chosen_dtype

    return device, str(chosen_dtype(options, torch.device("cpu"))).removeprefix("torch.")


def _cache_bytes(config: Any) -> int:
    """Room for the longest input, a step, and the last block of every row of it; no more.

    Otherwise vLLM takes a share of all the machine's memory.
    """
    model, parallel = config.model_config, config.parallel_config
    heads = model.get_num_kv_heads(parallel) * model.get_num_layers(parallel)
    scheduler, block = config.scheduler_config, config.cache_config.block_size
    tokens = max(model.max_model_len, scheduler.max_num_batched_tokens)
    blocks = ceil(tokens / block) + scheduler.max_num_seqs
    return int(2 * heads * model.get_head_size() * model.dtype.itemsize * blocks * block)


def _told(error: BaseException) -> str:
    """What an error of vLLM's says in one line; pydantic puts it into a list."""
    errors: Callable[[], Any] | None = getattr(error, "errors", None)
    found = errors() if callable(errors) else None
    return str(found[0]["msg"]) if found else first_line(error)
