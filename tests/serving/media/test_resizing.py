"""The size of an image, number for number as Qwen2-VL's processor computes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from serving.errors import MediaInvalid
from serving.media.resizing import Sizing

LIMITS = (602_112, 1_003_520, 12_845_056, 20_000_000, 37_788_800)
# models.md 3.4: height and width of the input, then those after the resize at each limit.
TABLE = {
    (224, 224): [(224, 224)] * 5,
    (1080, 1920): [(560, 1008), (728, 1316), (1092, 1932), (1092, 1932), (1092, 1932)],
    (3508, 2480): [(896, 644), (1176, 840), (3500, 2492), (3500, 2492), (3500, 2492)],
    (4000, 5000): [(672, 840), (896, 1120), (3192, 4004), (3976, 4984), (4004, 5012)],
    (5000, 6000): [(700, 840), (896, 1092), (3248, 3920), (4060, 4872), (5012, 5992)],
}
TOKENS = {(3508, 2480): 11125, (4000, 5000): 25276, (5000, 6000): 25230}


@pytest.mark.parametrize("size", TABLE, ids=str)
def test_the_table_of_the_facts(size: tuple[int, int]) -> None:
    assert [Sizing(28, 3136, most).fit(*size, "input") for most in LIMITS] == TABLE[size]


@pytest.mark.parametrize("size", TOKENS, ids=str)
def test_a_square_is_a_token(size: tuple[int, int]) -> None:
    tall, wide = Sizing(28, 3136, 20_000_000).fit(*size, "input")
    assert tall * wide // 784 == TOKENS[size]


@given(
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.sampled_from([14, 28, 32, 56]),
    st.sampled_from([3136, 65_536]),
    st.sampled_from([70_000, *LIMITS]),
)
def test_every_size_is_the_references(
    height: int, width: int, factor: int, least: int, most: int
) -> None:
    sizing = Sizing(factor, least, most)
    try:
        theirs = smart_resize(height, width, factor, least, most)
    except ValueError:
        with pytest.raises(MediaInvalid):
            sizing.fit(height, width, "input")
    else:
        assert sizing.fit(height, width, "input") == theirs
