"""MaxSim and cosine against the formulas, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.values import Floats, Ragged
from serving.vectors import maxsim
from serving.vectors.maxsim import cosines, maxsims


def rows(seed: int, count: int, width: int) -> Floats:
    found = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def ragged(seed: int, counts: list[int], width: int) -> Ragged:
    return Ragged(rows(seed, sum(counts), width), np.array(counts, np.int32))


def naive(query: Floats, documents: Ragged) -> list[float]:
    found, start = [], 0
    for count in documents.counts.tolist():
        own = documents.values[start : start + count]
        start += count
        best = [max((float(q @ d) for d in own), default=0.0) for q in query]
        found.append(math.fsum(best))
    return found


COUNTS = st.lists(st.integers(0, 6), max_size=7)


@given(st.integers(0, 9), st.integers(0, 8), COUNTS, st.integers(1, 5), st.integers(1, 40))
def test_maxsim_is_the_sum_of_every_query_tokens_best_match(
    seed: int, tokens: int, counts: list[int], width: int, at_once: int
) -> None:
    query, documents = rows(seed, tokens, width), ragged(seed + 1, counts, width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maxsim, "_AT_ONCE", at_once)
        found = maxsims(query, documents)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive(query, documents), rtol=0, atol=1e-5)


@given(st.integers(0, 9), COUNTS)
def test_a_documents_score_is_its_own_alone(seed: int, counts: list[int]) -> None:
    query, documents = rows(seed, 3, 4), ragged(seed + 1, counts, 4)
    parts = np.split(documents.values, np.cumsum(counts)[:-1]) if counts else []
    alone = [maxsims(query, Ragged(p, np.array([len(p)], np.int32)))[0] for p in parts]
    np.testing.assert_allclose(maxsims(query, documents), alone, rtol=0, atol=1e-6)


def test_a_text_is_most_like_itself() -> None:
    documents = ragged(3, [5, 7, 2], 16)
    own = documents.values[5:12]
    found = maxsims(own, documents)
    assert int(found.argmax()) == 1
    np.testing.assert_allclose(found[1], 7.0, atol=1e-5)


@given(st.integers(0, 9), st.integers(0, 6), st.floats(0.01, 100))
def test_a_cosine_does_not_depend_on_length(seed: int, count: int, scale: float) -> None:
    query, documents = rows(seed, 1, 8)[0], rows(seed + 1, count, 8)
    found = cosines(query * np.float32(scale), documents * np.float32(scale))
    np.testing.assert_allclose(found, [d @ query for d in documents], rtol=0, atol=1e-5)


def test_a_vector_of_zeros_is_like_nothing() -> None:
    assert cosines(np.ones(3, np.float32), np.zeros((2, 3), np.float32)).tolist() == [0.0, 0.0]
