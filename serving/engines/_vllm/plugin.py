"""What vLLM's processes are told as they start: the entry point `vllm.general_plugins`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

from serving.engines._vllm.backbones import BACKBONES
from serving.operators import declare

__all__ = ["register"]

_MODELS = "serving.engines._vllm.models"
_EXECUTORS = ("vllm.v1.executor.multiproc_executor", "vllm.v1.executor.uniproc_executor")


def register() -> None:
    """Our model classes by name, none imported before vLLM builds it; no port for workers; and an
    end for every process with the one that started it.
    """
    declare()
    from vllm import ModelRegistry  # here, because declare() comes first

    for backbone in BACKBONES.values():
        name = backbone.architecture
        ModelRegistry.register_model(name, f"{_MODELS}:{name}")
    _meet_in_a_file()
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    """vLLM's engine core would outlive a replica that is killed, and keep its GPU's memory."""
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _meet_in_a_file() -> None:
    """Before 0.28, vLLM's workers find each other at a port of torch's, open to every network."""
    network: Any = import_module("vllm.utils.network_utils")
    if hasattr(network, "get_file_store_init_method"):
        return
    for name in _EXECUTORS:
        executor: Any = import_module(name)
        executor.get_distributed_init_method = _file


def _file(ip: str, port: int) -> str:
    return (Path(tempfile.gettempdir()) / f"polyvec-vllm-{uuid4().hex}").as_uri()
