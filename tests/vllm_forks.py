"""vLLM's processes as forks of one that has imported vLLM.

An engine on a CPU has two processes, and each spends twelve seconds of processor time on imports:
with some twenty engines in the tests, that is most of what they cost. Everything after the start
is as it is with processes of their own, which `test_vllm_life.py` has.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import forkserver, set_forkserver_preload
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

__all__ = ["forking", "preload"]

_ASKING = ("vllm.v1.engine.utils", "vllm.v1.executor.multiproc_executor")
_NEEDED = (
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.lora.worker_manager",
    "vllm.model_executor.models.qwen3",
    "vllm.model_executor.models.qwen2_5_vl",
)


@contextmanager
def forking(engine: str = "vllm") -> Iterator[None]:
    """Engines that are started meanwhile are forks, if they are vLLM's and that is installed."""
    if engine != "vllm" or find_spec("vllm") is None:
        yield
        return
    set_forkserver_preload(["tests.vllm_preloaded"])
    before = {name: import_module(name).get_mp_context for name in _ASKING}
    registry = vars(import_module("vllm.model_executor.models.registry"))
    apart = registry["_run_in_subprocess"]
    _patch()
    registry["_run_in_subprocess"] = lambda look: look()  # at a class: one more import of vLLM
    try:
        yield
    finally:
        registry["_run_in_subprocess"] = apart
        for name, own in before.items():
            vars(import_module(name))["get_mp_context"] = own


def preload() -> None:
    """In the process that is forked: import what an engine needs, and have its own fork too."""
    for name in (*_ASKING, *_NEEDED):
        import_module(name)
    _patch()


def _patch() -> None:
    for name in _ASKING:
        vars(import_module(name))["get_mp_context"] = _Forks


class _Process(ForkServerProcess):
    """Takes along this process's environment, and its forking server for processes of its own."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        own = forkserver._forkserver
        own.ensure_running()
        address = own._forkserver_address
        given = (dict(os.environ), address, target, args, kwargs or {})
        super().__init__(group, _run, name, given, daemon=daemon)


class _Forks(ForkServerContext):
    Process = _Process  # type: ignore[assignment]


def _run(
    env: dict[str, str],
    address: str,
    target: Callable[..., object],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> None:
    for name in os.environ.keys() - env.keys():
        del os.environ[name]
    os.environ.update(env)
    own = forkserver._forkserver
    own._forkserver_address, own.ensure_running = address, lambda: None
    target(*args, **kwargs)
