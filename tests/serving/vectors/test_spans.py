"""Sums of pieces become one mean a vector, in which every token weighs the same."""

from __future__ import annotations

import numpy as np

from serving.vectors.spans import add_sums, means, of_inputs

RANDOM = np.random.default_rng(0)
STATES = [RANDOM.standard_normal((n, 5), np.float32) for n in (7, 1, 4)]
SPANS = np.array([[0, 0, 1, 7], [0, 1, 0, 1], [1, 2, 0, 3], [3, 2, 1, 4]], np.int32)


def totals(order: list[int]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    found = np.zeros((4, 5), np.float32)
    by_input = of_inputs(SPANS, 3)
    for at in order:
        sums = np.array([STATES[at][a:b].sum(0) for _, _, a, b in by_input[at].tolist()])
        add_sums(found, by_input[at], sums)
    return found


def test_every_input_gets_its_own_spans() -> None:
    assert [one.tolist() for one in of_inputs(SPANS[:2], 4)] == [
        [[0, 0, 1, 7]],
        [[0, 1, 0, 1]],
        [],
        [],
    ]
    assert [len(one) for one in of_inputs(SPANS, 3)] == [1, 1, 2]


def test_spans_of_one_input_stay_in_order() -> None:
    spans = np.array([[0, 1, 0, 2], [0, 0, 4, 5], [1, 1, 2, 3], [2, 1, 3, 9]], np.int32)
    first, second = of_inputs(spans, 2)
    assert first.tolist() == [[0, 0, 4, 5]]
    assert second[:, 0].tolist() == [0, 1, 2]


def test_a_mean_over_pieces_is_the_mean_over_all_of_their_tokens() -> None:
    found = means(totals([0, 1, 2]), SPANS)
    assert found.dtype == np.float32
    assert np.allclose(found[0], np.concatenate([STATES[0][1:7], STATES[1]]).mean(0), atol=1e-6)
    assert np.allclose(found[1], STATES[2][:3].mean(0), atol=1e-6)
    assert np.allclose(found[3], STATES[2][1:4].mean(0), atol=1e-6)


def test_the_order_in_which_inputs_come_does_not_matter() -> None:
    assert np.allclose(totals([2, 0, 1]), totals([0, 1, 2]), atol=1e-6)


def test_a_vector_without_a_token_is_zero() -> None:
    assert not means(totals([0, 1, 2]), SPANS)[2].any()


def test_two_pieces_of_one_input_add_up() -> None:
    spans = np.array([[0, 0, 0, 2], [0, 0, 4, 7]], np.int32)
    found = np.zeros((1, 5), np.float32)
    add_sums(found, spans, np.array([STATES[0][:2].sum(0), STATES[0][4:7].sum(0)]))
    assert np.allclose(means(found, spans)[0], STATES[0][[0, 1, 4, 5, 6]].mean(0), atol=1e-6)
