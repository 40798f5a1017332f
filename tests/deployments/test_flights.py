"""What crosses a hop comes out as it went in."""

from __future__ import annotations

import pickle
import time

import numpy as np

from deployments.flights import pack_prepared, pack_vectors, unpack_prepared, unpack_vectors
from serving.values import Output, Prepared, Usage, Vectors


def test_a_prepared_job_survives_the_hop() -> None:
    prepared = Prepared(
        ids=np.array([1, 2, 3, 4], np.int32),
        lengths=np.array([1, 3], np.int32),
        usage=Usage(4),
        output=Output(64, False),
        adapter="code",
        skip=2,
        service_class="bulk",
    )
    got, deadline = unpack_prepared(
        pickle.loads(pickle.dumps(pack_prepared(prepared, time.monotonic() + 5)))
    )
    assert got.ids.tolist() == [1, 2, 3, 4] and got.lengths.tolist() == [1, 3]
    assert (got.output, got.adapter, got.skip, got.service_class) == (
        prepared.output,
        "code",
        2,
        "bulk",
    )
    assert 4 < deadline - time.monotonic() <= 5


def test_vectors_survive_the_hop_bit_for_bit() -> None:
    array = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    got = unpack_vectors(pickle.loads(pickle.dumps(pack_vectors(Vectors(array, 0.1, 0.2)))))
    assert np.array_equal(got.array, array)
    assert (got.queue_s, got.infer_s) == (0.1, 0.2)
