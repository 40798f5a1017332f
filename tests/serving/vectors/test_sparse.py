"""The largest weight of every token id, and none for special tokens."""

from __future__ import annotations

import numpy as np

from serving.values import Floats, Ints
from serving.vectors.sparse import strongest


def found(ids: list[int], weights: list[float], without: tuple[int, ...] = ()) -> list[object]:
    arrays: tuple[Ints, Floats] = strongest(
        np.array(ids, np.int32), np.array(weights, np.float32), without
    )
    assert [one.dtype for one in arrays] == [np.int32, np.float32]
    return [one.tolist() for one in arrays]


def test_a_token_has_its_largest_weight_and_ids_ascend() -> None:
    assert found([9, 4, 9, 7, 9], [0.5, 0.25, 0.75, 1.0, 0.125]) == [[4, 7, 9], [0.25, 1.0, 0.75]]


def test_a_weight_that_is_not_above_zero_is_none() -> None:
    assert found([5, 6, 7], [0.0, -1.0, 0.5]) == [[7], [0.5]]


def test_special_tokens_have_none() -> None:
    assert found([0, 6, 2], [3.0, 1.0, 2.0], (0, 2)) == [[6], [1.0]]


def test_an_input_may_have_none_at_all() -> None:
    assert found([], []) == [[], []]
    assert found([3], [1.0], (3,)) == [[], []]
