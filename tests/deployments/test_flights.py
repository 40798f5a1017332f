"""What crosses a hop comes out as it went in."""

from __future__ import annotations

import pickle
import time
from typing import Any

import numpy as np
import pytest

from deployments.flights import pack_prepared, pack_vectors, unpack_prepared, unpack_vectors
from serving.values import Output, Pixels, Prepared, Ragged, Sparse, Usage, Vectors


def crossed(value: object) -> Any:
    return pickle.loads(pickle.dumps(value))


def test_a_prepared_job_survives_the_hop() -> None:
    prepared = Prepared(
        ids=np.array([1, 2, 3, 4], np.int32),
        lengths=np.array([1, 3], np.int32),
        usage=Usage(4),
        output=Output(64, False),
        adapter="code",
        skip=2,
        service_class="bulk",
        tenant="whose",
    )
    carrier = ("an id", "a tenant", "")
    crossing = crossed(pack_prepared(prepared, time.monotonic() + 5, carrier))
    got, deadline, theirs = unpack_prepared(crossing)
    assert theirs == carrier
    assert got.ids.tolist() == [1, 2, 3, 4] and got.lengths.tolist() == [1, 3]
    assert (got.output, got.adapter, got.skip) == (prepared.output, "code", 2)
    assert (got.service_class, got.tenant) == ("bulk", "whose")
    assert 4 < deadline - time.monotonic() <= 5


def test_vectors_survive_the_hop_bit_for_bit() -> None:
    array = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    got = unpack_vectors(crossed(pack_vectors(Vectors(array, 0.1, 0.2))))
    assert np.array_equal(got.array, array)
    assert (got.queue_s, got.infer_s) == (0.1, 0.2)


def test_spans_images_and_outputs_survive_the_hop_and_the_tokens_text_stays_behind() -> None:
    spans = np.array([[0, 0, 1, 2], [1, 0, 2, 4]], np.int32)
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    prepared = Prepared(
        ids=np.array([1, 2, 3, 4], np.int32),
        lengths=np.array([4], np.int32),
        usage=Usage(1, 3),
        output=Output(None, dense=False, multi=True, sparse=True, tokens=True),
        spans=spans,
        pixels=(Pixels(1, 2, picture), Pixels(3, 1, picture[:1])),
        tokens=(("a",),),
    )
    got, _, _ = unpack_prepared(crossed(pack_prepared(prepared, time.monotonic() + 5)))
    assert got.output == Output(None, dense=False, multi=True, sparse=True)
    assert got.spans is not None
    assert got.spans.tolist() == spans.tolist()
    assert [(one.at, one.tokens) for one in got.pixels] == [(1, 2), (3, 1)]
    assert np.array_equal(got.pixels[0].array, picture)
    assert got.tokens is None


@pytest.mark.parametrize("width", [0, 3])
def test_multivectors_and_sparse_weights_survive_the_hop_bit_for_bit(width: int) -> None:
    rng = np.random.default_rng(0)
    counts = np.array([3, 0, 2], np.int32)
    multi = Ragged(rng.standard_normal((5, 4)).astype(np.float32), counts)
    weights = rng.standard_normal(5).astype(np.float32)
    sparse = Sparse(np.arange(5, dtype=np.int32), weights, counts)
    array = rng.standard_normal((3, width)).astype(np.float32)
    got = unpack_vectors(crossed(pack_vectors(Vectors(array, 0.1, 0.2, multi, sparse))))
    assert np.array_equal(got.array, array) and got.array.shape == (3, width)
    assert got.multi is not None and got.sparse is not None
    assert np.array_equal(got.multi.values, multi.values)
    assert got.multi.counts.tolist() == got.sparse.counts.tolist() == [3, 0, 2]
    assert np.array_equal(got.sparse.weights, weights)
    assert got.sparse.ids.tolist() == [0, 1, 2, 3, 4]


def test_one_kind_alone_survives_the_hop() -> None:
    empty = np.empty((1, 0), np.float32)
    multi = Ragged(np.ones((2, 3), np.float32), np.array([2], np.int32))
    got = unpack_vectors(crossed(pack_vectors(Vectors(empty, multi=multi))))
    assert got.sparse is None and got.multi is not None
    assert got.multi.values.shape == (2, 3)
