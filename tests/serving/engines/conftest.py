"""Models with adapters and their references, made once; and a look into every forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch

from serving.engines._calls import Input, Results
from serving.engines._network import Network
from serving.models.spec import ModelSpec
from tests.adapted import make
from tests.serving.engines.harness import Given, Reference


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Reference and engine count alike: the number of threads is the process's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A model of `tests.adapted` and its reference, made once."""
    folder = tmp_path_factory.mktemp("models")
    made: dict[str, tuple[ModelSpec, Reference]] = {}

    def get(name: str) -> tuple[ModelSpec, Reference]:
        if name not in made:
            spec = make(name, folder)
            made[name] = spec, Reference(spec)
        return made[name]

    return get


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Input]]:
    """Every batch that a network is given from now on."""
    seen: list[Sequence[Input]] = []
    forward = Network.__call__

    def remembered(network: Network, inputs: Sequence[Input]) -> Results:
        seen.append(inputs)
        return forward(network, inputs)

    monkeypatch.setattr(Network, "__call__", remembered)
    return seen
