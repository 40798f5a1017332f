"""Unit length and prefixes."""

from __future__ import annotations

import numpy as np

from serving.vectors.matryoshka import shorten, unit

VECTORS = np.random.default_rng(0).standard_normal((5, 8), np.float32)


def test_every_vector_gets_length_one() -> None:
    assert np.allclose(np.linalg.norm(unit(VECTORS), axis=-1), 1.0, atol=1e-6)


def test_a_zero_vector_stays_zero() -> None:
    assert not unit(np.zeros((2, 3), np.float32)).any()


def test_a_prefix_is_of_unit_length_again() -> None:
    short = shorten(unit(VECTORS), 3, normalized=True)
    assert short.shape == (5, 3)
    assert np.allclose(short, unit(VECTORS[:, :3]), atol=1e-6)


def test_a_prefix_that_is_not_normalized_is_left_as_it_is() -> None:
    assert np.array_equal(shorten(VECTORS, 3, normalized=False), VECTORS[:, :3])


def test_what_comes_back_is_a_new_contiguous_float32_array() -> None:
    for dimensions in (None, 3):
        for normalized in (False, True):
            array = shorten(VECTORS, dimensions, normalized)
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            assert not np.shares_memory(array, VECTORS)
