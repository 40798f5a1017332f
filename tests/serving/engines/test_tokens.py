"""Sums, multi-vectors and weights of token states, cut out of a padded batch."""

from __future__ import annotations

import numpy as np
import torch

from serving.engines._calls import Input, Wanted
from serving.engines._tokens import multi_vectors, span_sums, sparse_weights


def one(length: int, spans: list[list[int]] | None = None) -> Input:
    pieces = None if spans is None else np.array(spans, np.int32).reshape(-1, 4)
    return Input(np.arange(length, dtype=np.int32), 0, None, Wanted(pieces))


def test_sums_are_in_float32_whatever_the_states_are_in() -> None:
    states = torch.ones(1, 1001, 3, dtype=torch.bfloat16)
    [sums] = span_sums(states, [one(1001, [[0, 0, 0, 1001]])])
    assert sums is not None and sums.dtype == np.float32
    assert sums.tolist() == [[1001.0] * 3]


def test_each_input_gets_the_sums_of_its_own_spans() -> None:
    states = torch.arange(24.0).view(3, 4, 2)
    inputs = [one(4, [[0, 0, 0, 1], [1, 0, 1, 4]]), one(2), one(3, [[2, 2, 2, 3]])]
    first, second, third = span_sums(states, inputs)
    assert first is not None and first.tolist() == [[0, 1], [12, 15]]
    assert second is None
    assert third is not None and third.tolist() == [[20, 21]]


def test_an_input_without_pieces_has_no_sums_and_the_width_all_the_same() -> None:
    [sums] = span_sums(torch.ones(1, 2, 5), [one(2, [])])
    assert sums is not None and sums.shape == (0, 5)


def test_an_input_no_longer_than_what_is_skipped_has_no_multi_vector() -> None:
    rows = multi_vectors(torch.ones(3, 4, 2), [one(4), one(1), one(0)], 1)
    assert [found.shape for found in rows] == [(3, 2), (0, 2), (0, 2)]
    assert np.allclose(np.linalg.norm(rows[0], axis=1), 1.0)


def test_weights_of_padding_do_not_count() -> None:
    scored = torch.tensor([[[0.5], [2.0], [9.0]], [[-1.0], [1.0], [3.0]]])
    found = sparse_weights(scored, [one(2), one(3)], (2,))
    assert [(ids.tolist(), weights.tolist()) for ids, weights in found] == [
        ([0, 1], [0.5, 2.0]),
        ([1], [1.0]),
    ]
