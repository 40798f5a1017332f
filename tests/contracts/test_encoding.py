"""The promises of `Encoding`, kept by every file in `serving/encodings/`; each type's own rule."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.encodings import ENCODINGS, encoding
from serving.values import Floats


def unit(rows: int, width: int) -> Floats:
    array = np.random.default_rng(rows * 1000 + width).standard_normal((rows, width))
    vectors: Floats = (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(np.float32)
    return vectors


@pytest.fixture(params=ENCODINGS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("shape", [(1, 8), (3, 12), (2, 1), (5, 384), (0, 8)])
def test_there_is_one_row_an_input(name: str, shape: tuple[int, int]) -> None:
    encoded = encoding(name).encode(unit(*shape))
    assert encoded.ndim == 2
    assert len(encoded) == shape[0]


def test_a_row_depends_on_its_own_input_alone(name: str) -> None:
    vectors = unit(4, 24)
    together = encoding(name).encode(vectors)
    alone = [encoding(name).encode(vectors[i : i + 1])[0] for i in range(4)]
    np.testing.assert_array_equal(together, alone)


def test_the_vectors_are_left_as_they_were(name: str) -> None:
    vectors = unit(2, 24)
    before = vectors.copy()
    encoding(name).encode(vectors)
    np.testing.assert_array_equal(vectors, before)


def test_rows_are_written_as_json_lists_of_numbers(name: str) -> None:
    row = encoding(name).encode(unit(1, 24))[0]
    written = orjson.loads(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))
    np.testing.assert_array_equal(np.array(written, row.dtype), row)


def test_float_is_the_vector_itself() -> None:
    vectors = unit(3, 16)
    assert encoding("float").encode(vectors) is vectors


def test_int8_scales_by_127_and_clips() -> None:
    vectors = np.array([[1.0, -1.0, 0.0, 0.5, 2.0, -3.0]], np.float32)
    encoded = encoding("int8").encode(vectors)
    assert encoded.dtype == np.int8
    assert encoded.tolist() == [[127, -127, 0, 64, 127, -127]]


def test_int8_keeps_cosines() -> None:
    vectors = unit(20, 384)
    numbers = encoding("int8").encode(vectors).astype(np.float32)
    again = numbers / np.linalg.norm(numbers, axis=1, keepdims=True)
    assert np.abs(again @ again.T - vectors @ vectors.T).max() < 0.01


def test_uint8_is_int8_plus_128() -> None:
    vectors = unit(3, 40)
    offset = encoding("uint8").encode(vectors).astype(int) - 128
    np.testing.assert_array_equal(offset, encoding("int8").encode(vectors))


def test_ubinary_packs_the_highest_bit_first_and_zero_is_no_bit() -> None:
    vectors = np.array([[1, -1, 0, 1, -1, -1, -1, 1, 1]], np.float32)
    encoded = encoding("ubinary").encode(vectors)
    assert encoded.dtype == np.uint8
    assert encoded.tolist() == [[0b10010001, 0b10000000]]


def test_binary_is_the_pair_measured_at_the_hosted_api() -> None:
    bits = np.unpackbits(np.array([[50, 193, 128, 255]], np.uint8), axis=1)
    vectors = bits.astype(np.float32) - 0.5
    assert encoding("ubinary").encode(vectors).tolist() == [[50, 193, 128, 255]]
    assert encoding("binary").encode(vectors).tolist() == [[-78, 65, 0, 127]]


@settings(derandomize=True, database=None, deadline=None)
@given(some.lists(some.floats(-1, 1, width=32), min_size=1, max_size=40))
def test_llama_index_unpacks_binary_to_the_signs(values: list[float]) -> None:
    vectors = np.array([values], np.float32)
    packed = encoding("binary").encode(vectors)
    unpacked = np.unpackbits((packed.astype(np.int16) + 128).astype(np.uint8), axis=1)
    assert unpacked.shape[1] == -(-len(values) // 8) * 8
    np.testing.assert_array_equal(unpacked[0, : len(values)], vectors[0] > 0)
