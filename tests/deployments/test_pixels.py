"""Pixels in the object store: put once, fetched once, freed, and what becomes of lost ones."""

from __future__ import annotations

import pickle
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ray

from deployments.flights import pack_prepared, unpack_prepared
from deployments.local import LocalNode
from deployments.pixels import (
    Elsewhere,
    PixelsLost,
    fetched,
    left_here,
    prepared_again,
    with_remedy,
)
from serving.errors import DeadlinePassed
from serving.values import Pixels, Prepared, Usage

pytestmark = pytest.mark.ray


def pictured(side: int = 2) -> Prepared:
    """Two images, each as bright as its number."""
    pixels = tuple(Pixels(i, 1, np.full((side, side, 3), i + 1, np.uint8)) for i in range(2))
    ids = np.array([7, 7], np.int32)
    return Prepared(ids, np.array([2], np.int32), Usage(0, 2), pixels=pixels)


def soon() -> float:
    return time.monotonic() + 30


async def test_a_job_without_images_is_left_alone(node: LocalNode) -> None:
    plain = Prepared(np.array([7], np.int32), np.array([1], np.int32), Usage(1))
    assert await left_here(plain) is plain


async def test_pixels_come_out_where_they_are_fetched(node: LocalNode) -> None:
    left = await left_here(pictured())
    assert all(isinstance(one.array, Elsewhere) for one in left.pixels)
    got = await fetched(left, soon())
    assert [(one.at, one.tokens) for one in got.pixels] == [(0, 1), (1, 1)]
    for one, other in zip(got.pixels, pictured().pixels, strict=True):
        assert np.array_equal(one.array, other.array)


async def again() -> Prepared:
    return pictured()


def test_where_pixels_are_crosses_a_hop_and_the_remedy_stays() -> None:
    places: list[Any] = [Elsewhere("a reference", at, again) for at in range(2)]  # type: ignore[arg-type]
    pixels = tuple(Pixels(at, 1, place) for at, place in enumerate(places))
    packed = pickle.dumps(pack_prepared(replace(pictured(), pixels=pixels), soon()))
    got: list[Any] = [one.array for one in unpack_prepared(pickle.loads(packed))[0].pixels]
    assert [(one.ref, one.at, one.again) for one in got] == [
        ("a reference", i, None) for i in (0, 1)
    ]


async def test_the_remedy_is_to_prepare_the_job_again(node: LocalNode) -> None:
    left = await left_here(pictured())
    assert await prepared_again(left) is None
    remade = await prepared_again(with_remedy(left, again))
    assert remade is not None
    assert len(remade.pixels) == 2


async def test_pixels_whose_owner_died_are_lost(node: LocalNode) -> None:
    @ray.remote(num_cpus=0)
    class Owner:
        def put(self) -> Any:
            return [ray.put((np.zeros((500, 500, 3), np.uint8),))]

    owner = Owner.remote()  # type: ignore[attr-defined]
    [ref] = await owner.put.remote()
    ray.kill(owner)
    place: Any = Elsewhere(ref, 0)
    prepared = replace(pictured(), pixels=(Pixels(0, 1, place),))

    async def until_ray_has_noticed() -> None:
        while True:
            await fetched(prepared, soon())

    with pytest.raises(PixelsLost, match="lost on the way"):
        await until_ray_has_noticed()


async def test_pixels_that_do_not_come_in_time_are_a_passed_deadline(node: LocalNode) -> None:
    @ray.remote(num_cpus=0)
    def never() -> None:
        threading.Event().wait()

    ref = never.remote()
    place: Any = Elsewhere(ref, 0)
    prepared = replace(pictured(), pixels=(Pixels(0, 1, place),))
    with pytest.raises(DeadlinePassed):
        await fetched(prepared, time.monotonic() + 0.01)
    ray.cancel(ref, force=True)
